// gemm for few rows of op(A), as when a token is decoded: op(B) is read once and multiplied as it comes, never packed.
// Its values are turned among the lanes and used while they are in registers, so that the time is that of reading B.
// The sums are those of gemm_kernel.h, product by product: a row has the same bits either way.
#pragma once
#include "gemm_kernel.h"

namespace westwind {
namespace {

constexpr int kThinRows = kTileM < 6 ? kTileM : 6;  // more are faster by panels
constexpr int64_t kBytesAhead = 1024;               // of a line, asked for before they are needed

// acc[i] += over [0, k) of a[·][i] · the lines' values; a is a panel of kTileM rows. A cache line of each line of B is
// used up at once: lines that lie a power of two apart would drive each other out of the cache before its second half.
template <int rows, class T>
inline void multiply_lines(const float* a, const T* const (&line)[kLanes], int64_t k, vf (&acc)[rows]) {
  constexpr int kSquares = 16 / kLanes;  // in a cache line
  int64_t at = 0;
  for (; at + kSquares * kStep<T> <= k; at += kSquares * kStep<T>) {
    for (const T* from : line) __builtin_prefetch(reinterpret_cast<const char*>(from + at) + kBytesAhead, 0, 2);
#pragma GCC unroll 4
    for (int s = 0; s < kSquares; ++s) {
      vf square[kLanes];
      load_square(line, kLanes, at + s * kStep<T>, square);
#pragma GCC unroll 32
      for (int j = 0; j < kStep<T>; ++j) {
        const vf b = k_of(line[0], square, j);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) acc[i] += a[(at + s * kStep<T> + j) * kTileM + i] * b;
      }
    }
  }
  for (; at < k; ++at) {
    vf b;
    for (int i = 0; i < kLanes; ++i) b[i] = to_float(line[i][at]);
    for (int i = 0; i < rows; ++i) acc[i] += a[at * kTileM + i] * b;
  }
}

// Columns [n, n + lanes) of C; a is the panel of all rows over all of K.
template <int rows, class T, class LaneCount>
void thin_columns(const GemmParams& p, const float* a, int64_t n, LaneCount lanes) {
  float* c = static_cast<float*>(p.c) + n;
  bf16* rounded = static_cast<bf16*>(p.c) + n;
  vf total[rows];
  for (int i = 0; i < rows; ++i) {
    total[i] = splat(-0.f);  // plus x is x, for every x
    if (p.beta != 0)
      total[i] = p.c_type == DType::kBf16 ? load(rounded + i * p.ldc, lanes) : load(c + i * p.ldc, lanes);
  }
  for (int64_t at = 0; at < p.K; at += kBlockK) {
    const T* line[kLanes];
    point_at(static_cast<const T*>(p.b) + at, p.ldb, n, p.N, line);
    vf acc[rows] = {};
    multiply_lines<rows>(a + at * kTileM, line, p.K - at < kBlockK ? p.K - at : kBlockK, acc);
    for (int i = 0; i < rows; ++i) total[i] += p.alpha * acc[i];
  }
  for (int i = 0; i < rows; ++i)
    p.c_type == DType::kBf16 ? store(rounded + i * p.ldc, total[i], lanes) : store(c + i * p.ldc, total[i], lanes);
}

// op(B)'s lines along k, and few rows. beta is 0 or 1: its product would be a rounding that other tiles may not make.
inline bool is_thin(const GemmParams& p) { return p.M <= kThinRows && p.trans_b && (p.beta == 0 || p.beta == 1); }

// Columns [n, end) of C for is_thin() problems.
template <class T, int rows = kThinRows>
void thin_part(const GemmParams& p, const float* a, int64_t n, int64_t end) {
  if constexpr (rows > 1) {
    if (p.M < rows) return thin_part<T, rows - 1>(p, a, n, end);
  }
  for (; n + kLanes <= end; n += kLanes) thin_columns<rows, T>(p, a, n, AllLanes{});
  if (n < end) thin_columns<rows, T>(p, a, n, SomeLanes{static_cast<int>(end - n)});
}

}  // namespace
}  // namespace westwind
