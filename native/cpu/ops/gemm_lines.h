// What the ways to multiply matrices share: operands as lines along k, and loops over tasks.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif

#include "dtype.h"
#include "parallel.h"

namespace westwind {
namespace {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

inline int64_t threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// op(A) by rows or op(B) by columns: the value of `line` at k.
struct Lines {
  const void* data;
  int64_t ld, lines;
  bool is_bf16, along_k;  // along_k: a line's values are contiguous
};

template <class Body>
inline void each(bool parallel, int64_t n, const Body& body) {
  if (parallel) {
    parallel_for(n, body);
  } else {
    for (int64_t i = 0; i < n; ++i) body(i);
  }
}

}  // namespace
}  // namespace westwind
