// rms_norm, with an optional fused residual add:
//
//   s = x + residual (rounded to dtype; s = x without residual)    rstd[t] = 1 / sqrt(mean(s[t, :]²) + eps)
//   y = weight · s · rstd                                            arXiv:1910.07467
//
// backward, g = dy · weight:   dx = dresidual + rstd · (g − s · rstd² · mean(g · s)),   dweight += Σ_t dy · s · rstd
#pragma once
#include "../dtype.h"

namespace westwind {

struct RmsNormParams {
  const void* x;         // [T, C]
  const void* residual;  // [T, C] or null
  const void* weight;    // [C]
  void* sum;             // [T, C] = s; written only with residual, else null
  void* y;               // [T, C]
  float* rstd;           // [T]
  int64_t T, C;
  float eps;
  DType dtype;  // of x, residual, weight, sum, y
};

struct RmsNormBackwardParams {
  const void* dy;         // [T, C]
  const void* s;          // [T, C] the input that was normalised
  const void* weight;     // [C]
  const float* rstd;      // [T]
  const void* dresidual;  // [T, C] or null: what arrives at s from beside the norm
  void* dx;               // [T, C]; may be dresidual
  float* dweight;         // [C], accumulated in an order that the thread count does not change
  int64_t T, C;
  DType dtype;
};

}  // namespace westwind
