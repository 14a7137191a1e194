// swiglu: out = silu(gate) · up, silu(z) = z / (1 + exp(−z)) (arXiv:2002.05202).
#pragma once
#include "../dtype.h"

namespace westwind {

struct SwigluParams {
  const void* gate_up;  // [T, 2F]: gate in the first F columns, up in the last F
  void* out;            // [T, F]
  int64_t T, F;
  DType dtype;
};

struct SwigluBackwardParams {
  const void* dout;     // [T, F]
  const void* gate_up;  // [T, 2F]
  void* dgate_up;       // [T, 2F]; may be gate_up
  int64_t T, F;
  DType dtype;
};

}  // namespace westwind
