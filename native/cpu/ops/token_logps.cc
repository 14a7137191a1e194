// token_logps: a row is read twice, for its maximum and for its sum; the second time it comes from the second-level
// cache. Contract: ops/token_logps.h
#include "../ops.h"
#include "parallel.h"
#include "softmax_row.h"

namespace westwind {
namespace {

constexpr int64_t kGrain = 1 << 14;  // logits; less is not worth handing to a thread

inline int64_t rows_per_task(int64_t V) { return V < kGrain ? kGrain / (V < 1 ? 1 : V) : 1; }

Status check_targets(const char* op, const int32_t* target, int64_t T, int64_t V) {
  for (int64_t t = 0; t < T; ++t)
    if (target[t] >= V)
      return fail("%s: target must be below V=%lld, got %d at index %lld", op, static_cast<long long>(V), target[t],
                  static_cast<long long>(t));
  return {};
}

template <class T>
void forward(const TokenLogpsParams& p) {
  parallel_ranges(p.T, rows_per_task(p.V), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* row = static_cast<const T*>(p.logits) + t * p.V;
      const float max = row_max(row, p.V);
      const double log_sum = log(row_sums<false>(row, p.V, max).exps);
      p.lse[t] = static_cast<float>(max + log_sum);
      p.out[t] = p.target[t] < 0 ? 0.f : static_cast<float>(to_float(row[p.target[t]]) - max - log_sum);
    }
  });
}

template <class T>
void backward(const TokenLogpsBackwardParams& p) {
  parallel_ranges(p.T, rows_per_task(p.V), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const bool counts = p.target[t] >= 0;
      row_gradient(static_cast<const T*>(p.logits) + t * p.V, p.V, counts ? p.target[t] : 0, p.lse[t],
                   counts ? p.dlogps[t] : 0.f, static_cast<T*>(p.dlogits) + t * p.V);
    }
  });
}

}  // namespace

namespace WESTWIND_ISA {

Status token_logps(const TokenLogpsParams& p) {
  const Status status = check_targets("token_logps", p.target, p.T, p.V);
  if (!status.ok) return status;
  p.dtype == DType::kBf16 ? forward<bf16>(p) : forward<float>(p);
  return {};
}

Status token_logps_backward(const TokenLogpsBackwardParams& p) {
  const Status status = check_targets("token_logps_backward", p.target, p.T, p.V);
  if (!status.ok) return status;
  p.dtype == DType::kBf16 ? backward<bf16>(p) : backward<float>(p);
  return {};
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
