// gemm for few rows of op(A), as when a token is decoded: op(B) is read once and multiplied as it comes, never packed.
// Its values are turned among the lanes and used while they are in registers, so that the time is that of reading B.
// The sums are those of gemm_kernel.h, product by product: a row has the same bits either way.
#pragma once
#include "gemm_kernel.h"

namespace westwind {
namespace {

constexpr int kThinRows = kTileM < 6 ? kTileM : 6;  // more are faster by panels
constexpr int64_t kBytesAhead = 1024;               // bytes of a line that are asked for before they are needed

// acc[i][g] += over [0, k) of a[·][i] · the lines' values; a is a panel of kTileM rows. Two groups of lines at a time,
// where the sums have registers: one chain of sums would wait for its own last term.
template <int rows, int groups, class T>
inline void multiply_lines(const float* a, const T* const (&line)[groups][kLanes], int64_t k, vf (&acc)[rows][groups]) {
  int64_t at = 0;
  for (; at + kStep<T> <= k; at += kStep<T>) {
    for (int g = 0; g < groups; ++g) {
      vf square[kLanes];
      for (int i = 0; i < kLanes; ++i) __builtin_prefetch(reinterpret_cast<const char*>(line[g][i] + at) + kBytesAhead);
      load_square(line[g], kLanes, at, square);
#pragma GCC unroll 32
      for (int j = 0; j < kStep<T>; ++j) {
        const vf b = k_of(line[g][0], square, j);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) acc[i][g] += a[(at + j) * kTileM + i] * b;
      }
    }
  }
  for (; at < k; ++at) {
    for (int g = 0; g < groups; ++g) {
      vf b;
      for (int i = 0; i < kLanes; ++i) b[i] = to_float(line[g][i][at]);
      for (int i = 0; i < rows; ++i) acc[i][g] += a[at * kTileM + i] * b;
    }
  }
}

// Columns [n, n + groups·kLanes) of C, as far as they exist; a is the panel of all rows over all of K.
template <int rows, int groups, class T>
void thin_columns(const GemmParams& p, const float* a, int64_t n) {
  float* c = static_cast<float*>(p.c) + n;
  bf16* rounded = static_cast<bf16*>(p.c) + n;
  const auto each = [&](const auto& body) {
    for (int g = 0; g < groups; ++g) {
      const int64_t left = p.N - n - g * kLanes;
      for (int i = 0; i < rows && left > 0; ++i) {
        const int64_t at = i * p.ldc + g * kLanes;
        left >= kLanes ? body(i, g, at, AllLanes{}) : body(i, g, at, SomeLanes{static_cast<int>(left)});
      }
    }
  };
  vf total[rows][groups];
  for (auto& row : total)
    for (vf& sum : row) sum = splat(-0.f);  // plus x is x, for every x
  if (p.beta != 0) {
    each([&](int i, int g, int64_t at, auto lanes) {
      total[i][g] = p.c_type == DType::kBf16 ? load(rounded + at, lanes) : load(c + at, lanes);
    });
  }
  for (int64_t at = 0; at < p.K; at += kBlockK) {
    const T* line[groups][kLanes];
    for (int g = 0; g < groups; ++g) point_at(static_cast<const T*>(p.b) + at, p.ldb, n + g * kLanes, p.N, line[g]);
    vf acc[rows][groups] = {};
    multiply_lines<rows, groups>(a + at * kTileM, line, p.K - at < kBlockK ? p.K - at : kBlockK, acc);
    for (int i = 0; i < rows; ++i)
      for (int g = 0; g < groups; ++g) total[i][g] += p.alpha * acc[i][g];
  }
  each([&](int i, int g, int64_t at, auto lanes) {
    p.c_type == DType::kBf16 ? store(rounded + at, total[i][g], lanes) : store(c + at, total[i][g], lanes);
  });
}

// op(B)'s lines along k, and few rows. beta is 0 or 1: its product would be a rounding that other tiles may not make.
inline bool is_thin(const GemmParams& p) { return p.M <= kThinRows && p.trans_b && (p.beta == 0 || p.beta == 1); }

template <int rows, class T>
void thin_rows(const GemmParams& p, const float* a, int64_t n, int64_t end) {
  constexpr int groups = rows == 1 ? 4 : rows == 2 ? 2 : 1;
  for (; n < end; n += groups * kLanes) thin_columns<rows, groups, T>(p, a, n);
}

// Columns [n, end) of C for is_thin() problems.
template <class T, int rows = kThinRows>
void thin_part(const GemmParams& p, const float* a, int64_t n, int64_t end) {
  if constexpr (rows > 1) {
    if (p.M < rows) return thin_part<T, rows - 1>(p, a, n, end);
  }
  thin_rows<rows, T>(p, a, n, end);
}

}  // namespace
}  // namespace westwind
