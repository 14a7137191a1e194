// linear_logps: the logits of a chunk of tokens are made by gemm, reduced row by row, turned into their gradient where
// they lie, and used by two more gemms. Chunks ascend, so the sum in dweight has one order. Contract:
// ops/linear_logps.h
//
// Every chunk reads and writes all of dweight, 8·V·C bytes against 6·rows·V·C operations: at 256 rows that is 5 % of
// the time at 15 GB/s and 150 GFLOP/s, and weight is packed once per 256 rows. Tiles multiply an order of magnitude
// faster, and only bf16: there a chunk has four times the rows, and the gradient by the logits is rounded.
#include "../ops.h"
#include "parallel.h"
#include "softmax_row.h"

namespace westwind {
namespace {

#ifdef WESTWIND_ISA_amx
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif
constexpr int64_t kMaxRows = 256, kMaxTileRows = 1024;
constexpr int64_t kMinRows = 64;
constexpr int64_t kChunkFloats = 8 << 20, kTileChunkFloats = 32 << 20;  // 32 and 128 MB of logits
constexpr int64_t kGrain = 1 << 14;                                     // logits; less is not worth handing to a thread

inline int64_t at_least(int64_t a, int64_t b) { return a < b ? b : a; }
inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

struct Head {
  const void* hidden;
  const void* weight;
  const int32_t* target;
  int64_t N, C, V;
  DType dtype;

  bool rounds_gradient() const { return kTiles && dtype == DType::kBf16; }
  int64_t chunk_rows() const {
    const int64_t rows = rounds_gradient() ? at_most(kMaxTileRows, kTileChunkFloats / at_least(V, 1))
                                           : at_most(kMaxRows, kChunkFloats / at_least(V, 1));
    return at_most(N, at_least(kMinRows, rows));
  }
  const void* hidden_row(int64_t n) const { return static_cast<const char*>(hidden) + n * C * size_of(dtype); }
};

Status check_targets(const char* op, const Head& h) {
  for (int64_t n = 0; n < h.N; ++n)
    if (h.target[n] < 0 || h.target[n] >= h.V)
      return fail("%s: target must be from 0 to V-1=%lld, got %d at index %lld", op, static_cast<long long>(h.V - 1),
                  h.target[n], static_cast<long long>(n));
  return {};
}

// logits [rows, V] of tokens [n, n + rows)
Status logits_of(const Head& h, int64_t n, int64_t rows, float* logits) {
  return WESTWIND_ISA::gemm({h.hidden_row(n), h.weight, logits, h.C, h.C, h.V, rows, h.V, h.C, 1.f, 0.f, h.dtype,
                             h.dtype, DType::kF32, false, true});
}

template <class Body>
void each_row(const Head& h, int64_t rows, const Body& body) {
  parallel_ranges(rows, at_least(kGrain / at_least(h.V, 1), 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// The gradient by the logits of a row, where they lie.
void leave_gradient(const Head& h, int64_t n, float lse, float dlogp, float* logits) {
  if (h.rounds_gradient()) {
    round_gradient(logits, h.V, h.target[n], lse, dlogp);
  } else {
    row_gradient(logits, h.V, h.target[n], lse, dlogp, logits);
  }
}

// dhidden of tokens [n, n + rows), and their part of dweight
Status gradients_of(const Head& h, int64_t n, int64_t rows, const float* dlogits, void* dhidden, float* dweight) {
  const DType type = h.rounds_gradient() ? DType::kBf16 : DType::kF32;
  const int64_t ld = h.V * (size_of(DType::kF32) / size_of(type));
  // Over a long V gemm is fastest with an f32 sum; so bf16 is rounded here.
  const bool rounds = h.dtype == DType::kBf16;
  Shortage shortage;
  float* sum = rounds ? static_cast<float*>(scratch(Slot::kRows, 4 * rows * h.C, shortage))
                      : static_cast<float*>(dhidden) + n * h.C;
  if (shortage.bytes > 0) return shortage.status();
  Status status = WESTWIND_ISA::gemm(
      {dlogits, h.weight, sum, ld, h.C, h.C, rows, h.C, h.V, 1.f, 0.f, type, h.dtype, DType::kF32, false, false});
  if (!status.ok) return status;
  if (rounds) {
    bf16* out = static_cast<bf16*>(dhidden) + n * h.C;
    for_lanes(rows * h.C, [&](int64_t i, auto lanes) { store(out + i, load(sum + i, lanes), lanes); });
  }
  if (dweight == nullptr) return status;
  return WESTWIND_ISA::gemm({dlogits, h.hidden_row(n), dweight, ld, h.C, h.C, h.V, h.C, rows, 1.f, 1.f, type, h.dtype,
                             DType::kF32, true, false});
}

void finish_row(const LinearLogpsParams& p, int64_t n, const float* row) {
  const int64_t target = p.target[n];
  const float max = row_max(row, p.V);
  const RowSums sums = p.entropy == nullptr ? row_sums<false>(row, p.V, max) : row_sums<true>(row, p.V, max);
  const double log_sum = log(sums.exps);
  p.lse[n] = static_cast<float>(max + log_sum);
  p.logps[n] = static_cast<float>(row[target] - max - log_sum);
  if (p.entropy != nullptr) p.entropy[n] = static_cast<float>(log_sum - sums.weighted / sums.exps);
  if (p.hit != nullptr) p.hit[n] = row[target] == max && (target == 0 || row_max(row, target) < max) ? 1.f : 0.f;
}

// Logits of all tokens, chunk by chunk: row(n, logits) reads those of token n and, where dhidden is wanted, leaves
// their gradient in their place.
template <class Row>
Status each_chunk(const char* op, const Head& h, void* dhidden, float* dweight, const Row& row) {
  Status status = check_targets(op, h);
  if (!status.ok || h.N == 0) return status;
  const int64_t chunk = h.chunk_rows();
  Shortage shortage;
  float* logits = static_cast<float*>(scratch(Slot::kShared, 4 * chunk * h.V, shortage));
  if (logits == nullptr) return shortage.status();
  for (int64_t n = 0; n < h.N && status.ok; n += chunk) {
    const int64_t rows = at_most(chunk, h.N - n);
    status = logits_of(h, n, rows, logits);
    if (!status.ok) break;
    each_row(h, rows, [&](int64_t i) { row(n + i, logits + i * h.V); });
    if (dhidden != nullptr) status = gradients_of(h, n, rows, logits, dhidden, dweight);
  }
  return status;
}

}  // namespace

namespace WESTWIND_ISA {

Status linear_logps(const LinearLogpsParams& p) {
  const Head h{p.hidden, p.weight, p.target, p.N, p.C, p.V, p.dtype};
  void* dhidden = p.dlogps == nullptr ? nullptr : p.dhidden;
  return each_chunk("linear_logps", h, dhidden, p.dweight, [&](int64_t n, float* logits) {
    finish_row(p, n, logits);
    if (p.dlogps != nullptr) leave_gradient(h, n, p.lse[n], p.dlogps[n], logits);
  });
}

Status linear_logps_backward(const LinearLogpsBackwardParams& p) {
  const Head h{p.hidden, p.weight, p.target, p.N, p.C, p.V, p.dtype};
  return each_chunk("linear_logps_backward", h, p.dhidden, p.dweight,
                    [&](int64_t n, float* logits) { leave_gradient(h, n, p.lse[n], p.dlogps[n], logits); });
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
