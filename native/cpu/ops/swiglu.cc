// swiglu: one pass over gate and up. Limited by memory bandwidth, close behind it by exp. Contract:
// ops/swiglu.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int64_t kRangeElements = 8192;  // rows of one parallel range hold about this many outputs

int64_t rows_per_range(int64_t F) { return F >= kRangeElements ? 1 : kRangeElements / (F > 0 ? F : 1); }

template <class T>
void forward(const SwigluParams& p) {
  const int64_t F = p.F;
  parallel_ranges(p.T, rows_per_range(F), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* gate = static_cast<const T*>(p.gate_up) + t * 2 * F;
      const T* up = gate + F;
      T* out = static_cast<T*>(p.out) + t * F;
      for_lanes(F, [&](int64_t i, auto lanes) {
        const vf z = load(gate + i, lanes);
        store(out + i, z / (exp(-z) + 1.f) * load(up + i, lanes), lanes);
      });
    }
  });
}

// silu'(z) = σ(z)·(1 + z·(1 − σ(z))); with e = exp(−|z|) neither σ nor 1 − σ loses digits or overflows.
template <class T>
void backward(const SwigluBackwardParams& p) {
  const int64_t F = p.F;
  parallel_ranges(p.T, rows_per_range(F), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* dout = static_cast<const T*>(p.dout) + t * F;
      const T* gate = static_cast<const T*>(p.gate_up) + t * 2 * F;
      const T* up = gate + F;
      T* dgate = static_cast<T*>(p.dgate_up) + t * 2 * F;
      T* dup = dgate + F;
      for_lanes(F, [&](int64_t i, auto lanes) {
        const vf z = load(gate + i, lanes), u = load(up + i, lanes), d = load(dout + i, lanes);
        const vi negative = z < 0.f;
        const vf e = exp(select(negative, z, -z));
        const vf large = 1.f / (e + 1.f), small = e * large;
        const vf sigmoid = select(negative, small, large), rest = select(negative, large, small);
        store(dgate + i, d * u * sigmoid * (z * rest + 1.f), lanes);
        store(dup + i, d * z * sigmoid, lanes);
      });
    }
  });
}

}  // namespace

Status swiglu(const SwigluParams& p) {
  p.dtype == DType::kBf16 ? forward<bf16>(p) : forward<float>(p);
  return {};
}

Status swiglu_backward(const SwigluBackwardParams& p) {
  p.dtype == DType::kBf16 ? backward<bf16>(p) : backward<float>(p);
  return {};
}

}  // namespace westwind::WESTWIND_ISA
