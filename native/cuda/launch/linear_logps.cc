// Chunks of tokens: logits by gemm into the workspace, the row kernel, and for the gradient two more gemms. Chunks
// ascend, so the sum in dweight has one order.
#include "params/linear_logps.h"

#include <algorithm>
#include <string>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr unsigned kThreads = 512;
constexpr int64_t kLogitsBytes = int64_t{128} << 20;
constexpr int64_t kMinRows = 64;
// Each chunk reads and writes all of dweight, 8·V·C bytes against 6·rows·V·C operations: from here on that is little on
// any GPU.
constexpr int64_t kMaxRows = 2048;
constexpr int64_t kRowTile = 128;  // of the gemms
constexpr const char *kForward = "linear_logps_fwd", *kBoth = "linear_logps_fwd_bwd", *kBackward = "linear_logps_bwd";

struct Head {
  const char* op;
  const void* hidden;
  const void* weight;
  void* dhidden;   // null: no gradient
  float* dweight;  // or null
  int64_t N, C, V;
  DType dtype;

  int64_t ld() const { return (V + 7) / 8 * 8; }  // 16 bytes of bf16
  int64_t chunk_rows() const {
    int64_t rows = std::clamp(kLogitsBytes / (4 * std::max<int64_t>(ld(), 1)), kMinRows, kMaxRows);
    if (rows > kRowTile) rows -= rows % kRowTile;
    return std::min(rows, N);
  }
  const void* hidden_row(int64_t n) const { return static_cast<const char*>(hidden) + n * C * size_of(dtype); }
  void* dhidden_row(int64_t n) const { return static_cast<char*>(dhidden) + n * C * size_of(dtype); }
};

template <class T>
T* from(T* base, int64_t n) {
  return base == nullptr ? nullptr : base + n;
}

Status gradients(Context& context, const Head& h, int64_t n, int64_t rows, const void* dlogits) {
  const Status status = gemm(context, {dlogits, h.weight, h.dhidden_row(n), h.ld(), h.C, h.C, rows, h.C, h.V, 1.f, 0.f,
                                       h.dtype, h.dtype, h.dtype, false, false});
  if (!status.ok || h.dweight == nullptr) return status;
  return gemm(context, {dlogits, h.hidden_row(n), h.dweight, h.ld(), h.C, h.C, h.V, h.C, rows, 1.f, 1.f, h.dtype,
                        h.dtype, DType::kF32, true, false});
}

// `all`: pointers to the first row; those of a chunk are made from it.
Status each_chunk(Context& context, const Head& h, const char* kernel, const LinearLogpsRows& all) {
  if (h.N == 0) return {};
  Status status =
      context.check_range(h.op, "target", all.target, h.N, h.V, ("from 0 to V-1=" + std::to_string(h.V - 1)).c_str());
  if (!status.ok) return status;
  const int64_t chunk = h.chunk_rows(), logits = chunk * h.ld();
  const bool apart = h.dhidden != nullptr && h.dtype == DType::kBf16;
  float* memory = nullptr;
  status = context.workspace(4 * logits + (apart ? 2 * logits : 0), &memory, Context::Slot::kOuter);
  if (!status.ok) return status;
  void* const dlogits = apart ? memory + logits : memory;
  const std::string name = h.dhidden == nullptr ? kernel : kernel_of(kernel, h.dtype);
  for (int64_t n = 0; n < h.N && status.ok; n += chunk) {
    const int64_t rows = std::min(chunk, h.N - n);
    status = gemm(context, {h.hidden_row(n), h.weight, memory, h.C, h.C, h.ld(), rows, h.V, h.C, 1.f, 0.f, h.dtype,
                            h.dtype, DType::kF32, false, true});
    const LinearLogpsRows p{memory,
                            dlogits,
                            all.target + n,
                            from(all.dlogps, n),
                            from(all.logps, n),
                            all.lse + n,
                            from(all.entropy, n),
                            from(all.hit, n),
                            context.fault(),
                            h.V,
                            h.ld()};
    if (status.ok) status = context.launch(name, {{static_cast<unsigned>(rows)}, kThreads}, p);
    if (status.ok && h.dhidden != nullptr) status = gradients(context, h, n, rows, dlogits);
  }
  return status;
}

}  // namespace

void add_linear_logps_names(Names& out) {
  out.push_back(kForward);
  for (const DType dtype : kFloats) out.insert(out.end(), {kernel_of(kBoth, dtype), kernel_of(kBackward, dtype)});
}

Status linear_logps(Context& context, const LinearLogpsParams& p) {
  const bool gradient = p.dlogps != nullptr;
  LinearLogpsRows all{};
  all.target = p.target, all.dlogps = p.dlogps, all.logps = p.logps, all.lse = p.lse;
  all.entropy = p.entropy, all.hit = p.hit;
  return each_chunk(
      context, {"linear_logps", p.hidden, p.weight, gradient ? p.dhidden : nullptr, p.dweight, p.N, p.C, p.V, p.dtype},
      gradient ? kBoth : kForward, all);
}

Status linear_logps_backward(Context& context, const LinearLogpsBackwardParams& p) {
  LinearLogpsRows all{};
  all.target = p.target, all.dlogps = p.dlogps, all.lse = const_cast<float*>(p.lse);  // only forward writes it
  return each_chunk(context,
                    {"linear_logps_backward", p.hidden, p.weight, p.dhidden, p.dweight, p.N, p.C, p.V, p.dtype},
                    kBackward, all);
}

}  // namespace westwind::cuda
