// What the kernels of optimizer get. Lists lie in working memory on the device.
#pragma once
#include "ops/optimizer.h"

namespace westwind {

// Tensors are cut into pieces; a block takes one. Of sum_squares the length is part of the order of summation.
constexpr int64_t kUpdatePiece = 8192, kSquaresPiece = 16384;  // elements

struct UpdateLaunch {
  const OptimizerTensor* tensors;  // [count]; weight_decay as the kernel multiplies: adamw's is 1 − lr·weight_decay
  const int64_t* starts;           // [count + 1]: pieces before tensor i
  int32_t count;
  float grad_scale;
  float keep, add;   // of v: β2 and 1 − β2 (rmsprop: α)
  float add_first;   // of m: 1 − β1
  float step;        // −lr / bias1 (rmsprop: −lr)
  float root_bias2;  // √bias2
  float eps;
};
static_assert(sizeof(UpdateLaunch) == 48 && sizeof(OptimizerTensor) == 56, "host and kernel read this by layout");

struct SquaresLaunch {
  const float* const* tensors;  // [count]
  const int64_t* sizes;         // [count]
  const int64_t* starts;        // [count + 1]
  double* partials;             // [starts[count]]
  float* out;                   // [count]
  int32_t count;
};
static_assert(sizeof(SquaresLaunch) == 48, "host and kernel read this by layout");

}  // namespace westwind
