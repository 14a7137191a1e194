// The multi-tensor ops of a training step. The arithmetic is f32 and torch's, operation by operation.
//
//   adamw:   w *= 1 − lr·weight_decay;  m += (g − m)(1 − β1);  v = β2·v + (1 − β2)·g²
//            w −= (lr / bias1) · m / (sqrt(v) / sqrt(bias2) + eps),   bias1 = 1 − β1^t, bias2 = 1 − β2^t
//            arXiv:1711.05101
//   rmsprop: g += weight_decay · w;  v = α·v + (1 − α)·g²;  w −= lr · g / (sqrt(v) + eps)
//   g = grad · grad_scale (clipping). w is the f32 master; param is its rounded copy in the model's dtype.
//   sum_squares: out[i] = Σ grad_i², in an order that the thread count does not change, f64 inside.
#pragma once
#include "../dtype.h"

namespace westwind {

struct OptimizerTensor {
  void* param;        // [n] in dtype
  float* master;      // [n], or null: param is the only copy
  const float* grad;  // [n]
  float* first;       // adamw: m [n]; rmsprop: null
  float* second;      // v [n]
  int64_t n;
  float weight_decay;
  DType dtype;
};

struct OptimizerParams {
  const OptimizerTensor* tensors;
  int32_t count;
  // Double: 1 − β2 and lr / bias1 are formed before they are rounded to f32, as torch does.
  double lr, beta1, beta2, eps;  // rmsprop: beta2 is α
  double bias1, bias2;           // adamw
  float grad_scale;
};

struct SumSquaresParams {
  const float* const* tensors;
  const int64_t* sizes;
  int32_t count;
  float* out;  // [count]
};

}  // namespace westwind
