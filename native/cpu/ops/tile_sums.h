// Sums that products of tiles left, and their way into C.
#pragma once
#include "fetch_ahead.h"
#include "gemm_lines.h"
#include "tiles.h"

namespace westwind {
namespace {

constexpr int64_t kTileSums = kTileRows * kTilePairs;
constexpr int64_t kPanelSums = 4 * kTileSums;  // of a panel of the first operand by one of the second: 2 × 2 tiles

// Apart, so that its product cannot be fused into the sum that follows: every copy of that code rounds alike.
__attribute__((noinline)) void scale(float* values, float by) { store(values, load(values) * by); }

template <class T, class Lanes>
inline void update_row(T* c, vf sum, float alpha, float beta, Lanes lanes) {
  if (beta == 0) return store(c, alpha * sum, lanes);
  float old[kLanes];
  store(old, load(c, lanes));
  if (beta != 1) scale(old, beta);
  store(c, load(old) + alpha * sum, lanes);
}

// Where sums of one part of K go.
struct Target {
  void* c;
  int64_t ldc;
  bool rounds;
  float alpha, beta;

  // One tile of sums into C at (m, n), of which rows × columns exist.
  void update(int64_t m, int64_t n, int64_t rows, int64_t columns, const float* sums) const {
    if (rounds) {
      update_as(static_cast<bf16*>(c) + m * ldc + n, rows, columns, sums);
    } else {
      update_as(static_cast<float*>(c) + m * ldc + n, rows, columns, sums);
    }
  }
  // A panel by a panel of C at (m, n).
  Region region(int64_t m, int64_t n, int64_t rows, int64_t columns) const {
    const int64_t high = least(rows, 2 * kTileRows), wide = least(columns, 2 * kTileRows), at = m * ldc + n;
    return rounds ? Region(static_cast<const bf16*>(c) + at, wide, ldc, high)
                  : Region(static_cast<const float*>(c) + at, wide, ldc, high);
  }
  template <class T>
  void update_as(T* to, int64_t rows, int64_t columns, const float* sums) const {
    for (int64_t i = 0; i < least(rows, kTileRows); ++i, to += ldc, sums += kTilePairs) {
      if (columns >= kLanes) {
        update_row(to, load(sums), alpha, beta, AllLanes{});
      } else if (columns > 0) {
        update_row(to, load(sums), alpha, beta, SomeLanes{static_cast<int>(columns)});
      }
    }
  }
};

}  // namespace
}  // namespace westwind
