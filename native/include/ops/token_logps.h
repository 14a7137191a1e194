// token_logps: log-probability of each target under given logits.
//
//   lse[t] = log Σ_v exp(logits[t, v]),  out[t] = logits[t, target[t]] − lse[t]     0 where target[t] < 0
//   backward: dlogits[t, v] = dlogps[t] · ([v = target[t]] − exp(logits[t, v] − lse[t]))    0 where target[t] < 0
#pragma once
#include "../dtype.h"

namespace westwind {

struct TokenLogpsParams {
  const void* logits;     // [T, V]
  const int32_t* target;  // [T], below V; negative: not trained on
  float* out;             // [T]
  float* lse;             // [T]
  int64_t T, V;
  DType dtype;
};

struct TokenLogpsBackwardParams {
  const void* logits;     // [T, V]
  const int32_t* target;  // [T]
  const float* lse;       // [T]
  const float* dlogps;    // [T]
  void* dlogits;          // [T, V], dtype
  int64_t T, V;
  DType dtype;
};

}  // namespace westwind
