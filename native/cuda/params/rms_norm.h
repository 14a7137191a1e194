// What the kernels of rms_norm_backward get beside the contract.
#pragma once
#include "ops/rms_norm.h"

namespace westwind {

struct RmsNormBackwardLaunch {
  RmsNormBackwardParams p;
  float* partials;  // [chunks, width]: dweight of each chunk of rows, in an order of the kernels' own
  int64_t rows;     // of a chunk; the last may have fewer
  int64_t chunks;
  int64_t width;  // C in whole groups of 16 bytes of the dtype
};
static_assert(sizeof(RmsNormBackwardLaunch) == 112, "host and kernel read this struct by layout");

}  // namespace westwind
