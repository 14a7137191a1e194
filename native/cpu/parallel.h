// Loops over threads. The split never changes a result: an iteration computes the same bits on whichever thread it
// runs.
#pragma once
#include <stdint.h>

#include "scratch.h"

namespace westwind {
namespace {

// body(i) for i in [0, n), handed out in order, one at a time, to whichever thread is free.
template <class Body>
inline void parallel_for(int64_t n, const Body& body) {
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
  for (int64_t i = 0; i < n; ++i) body(i);
}

// body(begin, end) over ranges of `grain` iterations.
template <class Body>
inline void parallel_ranges(int64_t n, int64_t grain, const Body& body) {
  const int64_t pieces = (n + grain - 1) / grain;
  parallel_for(pieces, [&](int64_t piece) {
    const int64_t begin = piece * grain;
    body(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace
}  // namespace westwind
