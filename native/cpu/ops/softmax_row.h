// One row of logits: its maximum, the sums of its softmax, and the gradient by the logits. What a row gives depends on
// the row alone. Exponentials in f32; sums in f32 over a few hundred values, and those in f64.
#pragma once
#include <math.h>

#include "vec.h"

namespace westwind {
namespace {

// -inf of no values.
template <class T>
inline float row_max(const T* logits, int64_t V) {
  vf m = splat(-__builtin_inff());
  int64_t v = 0;
  for (; v + kLanes <= V; v += kLanes) m = max(load(logits + v), m);
  if (v < V) m = max(load_tail(logits + v, static_cast<int>(V - v), -__builtin_inff()), m);
  return max(m);
}

struct RowSums {
  double exps;      // Σ e^(x − max)
  double weighted;  // Σ e^(x − max) · (x − max), if asked for
};

template <bool kWeighted, class T>
inline RowSums row_sums(const T* logits, int64_t V, float max) {
  constexpr int64_t kPart = 64 * kLanes;
  RowSums sums{0, 0};
  for (int64_t part = 0; part < V; part += kPart) {
    const int64_t end = part + kPart < V ? part + kPart : V;
    vf exps{}, weighted{};
    int64_t v = part;
    for (; v + kLanes <= end; v += kLanes) {
      const vf d = load(logits + v) - max;
      const vf e = exp(d);
      exps += e;
      if (kWeighted) weighted += e * d;
    }
    if (v < end) {
      vf d = load_tail(logits + v, static_cast<int>(end - v)) - max;
      for (int i = static_cast<int>(end - v); i < kLanes; ++i) d[i] = -1000;  // counts nothing: e^-1000 is 0
      const vf e = exp(d);
      exps += e;
      if (kWeighted) weighted += e * d;
    }
    sums.exps += sum(exps);
    if (kWeighted) sums.weighted += sum(weighted);
  }
  return sums;
}

// dlogits = dlogp · (onehot(target) − e^(logits − lse)); may be done in place. All 0 where dlogp is 0.
template <class T>
inline void row_gradient(const T* logits, int64_t V, int64_t target, float lse, float dlogp, T* dlogits) {
  if (dlogp == 0) {
    memset(dlogits, 0, static_cast<size_t>(V) * sizeof(T));
    return;
  }
  const float p = exp(splat(to_float(logits[target])) - lse)[0];
  for_lanes(V, [&](int64_t v, auto lanes) { store(dlogits + v, -dlogp * exp(load(logits + v, lanes) - lse), lanes); });
  store(dlogits + target, dlogp * (1 - p));
}

// The same rounded to bf16, into the first half of the memory of the logits.
inline void round_gradient(float* logits, int64_t V, int64_t target, float lse, float dlogp) {
  char* out = reinterpret_cast<char*>(logits);
  if (dlogp == 0) {
    memset(out, 0, static_cast<size_t>(V) * sizeof(bf16));
    return;
  }
  constexpr int64_t kPart = 64 * kLanes;
  bf16 part[kPart];
  const float p = exp(splat(logits[target]) - lse)[0];
  for (int64_t v = 0; v < V; v += kPart) {  // what is written was read before: two bytes for four
    const int64_t n = v + kPart < V ? kPart : V - v;
    for_lanes(n,
              [&](int64_t i, auto lanes) { store(part + i, -dlogp * exp(load(logits + v + i, lanes) - lse), lanes); });
    memcpy(out + v * sizeof(bf16), part, static_cast<size_t>(n) * sizeof(bf16));
  }
  const bf16 of_target = to_bf16(dlogp * (1 - p));
  memcpy(out + target * sizeof(bf16), &of_target, sizeof of_target);
}

}  // namespace
}  // namespace westwind
