// The small change: fill, scale, add, cast. n elements, no broadcasting.
#pragma once
#include "../dtype.h"

namespace westwind {

struct FillParams {
  void* x;  // f32, bf16 or i32
  int64_t n;
  float value;
  DType dtype;
};

struct ScaleParams {  // x *= factor
  void* x;
  int64_t n;
  float factor;
  DType dtype;
};

struct AddParams {  // out = a + b; out may be a or b
  const void* a;
  const void* b;
  void* out;
  int64_t n;
  DType dtype;
};

struct CastParams {  // out = x in another dtype (f32 and bf16); the same dtype copies
  const void* x;
  void* out;
  int64_t n;
  DType from, to;
};

}  // namespace westwind
