// linear_logps: token_logps of logits = hidden · weightᵀ that are never stored: only a bounded chunk exists at a time.
//
//   logps[n] = logits[n, target[n]] − lse[n]         entropy[n] = lse[n] − Σ_v p_v · logits_v (nats)
//   hit[n] = 1 if the arg-max over v is target[n] (the first of equals), else 0
//   backward: dlogits = dlogps[n] · (onehot − softmax),  dhidden = dlogits · weight,  dweight += dlogitsᵀ · hidden
//
// Forward with dlogps set also does the backward in the same pass (the upstream gradient is known beforehand, as in
// SFT). Logits and softmax are f32 in every dtype; dlogits may be rounded to it. A row of results depends on its own
// row of hidden alone. Idea: arXiv:2411.09009, arXiv:2410.10989.
#pragma once
#include "../dtype.h"

namespace westwind {

struct LinearLogpsParams {
  const void* hidden;     // [N, C]
  const void* weight;     // [V, C]
  const int32_t* target;  // [N], 0 <= target < V
  float* logps;           // [N]
  float* lse;             // [N]
  float* entropy;         // [N] or null
  float* hit;             // [N] or null
  const float* dlogps;    // [N] or null: then dhidden and dweight are not touched
  void* dhidden;          // [N, C], written
  float* dweight;         // [V, C], accumulated; null: not wanted
  int64_t N, C, V;
  DType dtype;
};

struct LinearLogpsBackwardParams {
  const void* hidden;     // [N, C]
  const void* weight;     // [V, C]
  const int32_t* target;  // [N]
  const float* lse;       // [N]
  const float* dlogps;    // [N]
  void* dhidden;          // [N, C], written
  float* dweight;         // [V, C], accumulated; null: not wanted
  int64_t N, C, V;
  DType dtype;
};

}  // namespace westwind
