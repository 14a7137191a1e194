// What the row kernels of linear_logps take: a chunk of logits, and where the results of its rows go.
#pragma once
#include <stdint.h>

#include "fault.h"

namespace westwind {

struct LinearLogpsRows {
  float* logits;          // [rows, ld], rows on 16 bytes
  void* dlogits;          // [rows, ld] in the kernel's dtype; f32: may be logits
  const int32_t* target;  // [rows], and so on
  const float* dlogps;
  float* logps;
  float* lse;      // written by forward, read by backward
  float* entropy;  // or null
  float* hit;      // or null
  const Fault* fault;
  int64_t V, ld;
};
static_assert(sizeof(LinearLogpsRows) == 88, "host and fatbin read this struct by layout");

}  // namespace westwind
