// rope: rotates the first `heads` heads of every row, in place (arXiv:2104.09864, the rotate-half pairing i, i + D/2):
//
//   angle = sign · position · theta^(−2i/D), exact to f32;  (a, b) -> (a·cos − b·sin, b·cos + a·sin)
//
// sign −1 is the inverse and so the backward.
#pragma once
#include "../dtype.h"

namespace westwind {

struct RopeParams {
  void* x;                   // [T, row_heads, D]
  const int32_t* positions;  // [T], >= 0
  int64_t T;
  int32_t heads, row_heads, D;  // heads <= row_heads, D even
  double theta;
  float sign;
  DType dtype;
};

}  // namespace westwind
