#include <algorithm>
#include <utility>

#include "gemm_config.h"
#include "gemm_sm90.h"
#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr const char* kReduce = "gemm_reduce";

bool on_16_bytes(const void* data, int64_t ld, DType type) {
  return type == DType::kBf16 && (reinterpret_cast<uintptr_t>(data) & 15) == 0 && ld % 8 == 0;
}

GemmShape shape_of(const GemmParams& p) {
  const bool aligned = on_16_bytes(p.a, p.lda, p.a_type) && on_16_bytes(p.b, p.ldb, p.b_type);
  const bool ragged = (p.trans_a ? p.M : p.K) % 8 != 0 || (p.trans_b ? p.K : p.N) % 8 != 0;
  return {p.M, p.N, p.K, p.trans_a, p.trans_b, aligned, ragged, p.c_type == DType::kF32};
}

}  // namespace

void add_gemm_names(Names& out) {
  for (std::string& kernel : gemm_kernels()) out.push_back(std::move(kernel));
  out.push_back(kReduce);
}

Status gemm(Context& context, const GemmParams& p) {
  if (p.M <= 0 || p.N <= 0) return {};
  const DeviceFacts& facts = context.facts();
  const GemmConfig config = choose_gemm(shape_of(p), facts.arch, facts.sms, facts.shared_bytes);
  GemmKernelParams k{p, nullptr, config.chunk, 0, 0};
  k.tiles_m = static_cast<int32_t>((p.M + config.block_m - 1) / config.block_m);
  k.tiles_n = static_cast<int32_t>((p.N + config.block_n - 1) / config.block_n);
  unsigned split = 1;
  if (config.split > 1) {
    // Without room, a block walks all chunks: the bits are the same.
    if (context.workspace(config.split * p.M * p.N * 4, &k.partial).ok) split = static_cast<unsigned>(config.split);
  }
  const auto tiles = static_cast<unsigned>(k.tiles_m) * static_cast<unsigned>(k.tiles_n);
  const Launch how{{tiles, split}, static_cast<unsigned>(config.threads), static_cast<unsigned>(config.shared_bytes)};
  const Status status =
      config.cluster > 0 ? launch_gemm_sm90(context, config, k) : context.launch(config.kernel, how, k);
  if (!status.ok || split == 1) return status;
  const int64_t blocks = std::min<int64_t>((p.M * p.N + 255) / 256, 16 * facts.sms);
  return context.launch(kReduce, {{static_cast<unsigned>(blocks)}, 256}, k);
}

}  // namespace westwind::cuda
