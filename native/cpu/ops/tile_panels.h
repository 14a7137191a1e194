// Packing of bf16 operands for tiles. A panel is two tiles wide: per step of 32 k its first 16 lines, then the
// other 16. As the first operand of a product a tile is [16 lines][32 k]; as the second [16 pairs of k][16 lines][2].
// Both are squares of 16 × 16 pairs, one the other transposed. Lines and values of k that do not exist are 0.
#pragma once
#include "gemm_kernel.h"
#include "gemm_lines.h"
#include "tiles.h"

namespace westwind {
namespace {

constexpr int64_t kPanelLines = 2 * kTileRows;
constexpr int64_t kTileValues = kTileSize / 2;
constexpr int64_t kPanelStep = 2 * kTileValues;  // values of a panel in one step of k

enum class Role { kFirst, kSecond };

inline int64_t padded_depth(int64_t k) { return pieces_of(k, kTileDepth) * kTileDepth; }

typedef vf Square[kLanes];  // of pairs

// Pairs of one tile to or from memory in which a row has `stride` values.
inline void load_square(const bf16* from, int64_t stride, Square& square) {
  for (int i = 0; i < kLanes; ++i) memcpy(&square[i], from + i * stride, sizeof square[i]);
}
inline void store_square(bf16* to, const Square& square) {
  for (int i = 0; i < kLanes; ++i) memcpy(to + i * kTileDepth, &square[i], sizeof square[i]);
}

// Of 32 lines at k and at k + 1: the pairs of the even lines, or of the odd ones.
inline vf pairs_of_even(vu row, vu next) { return (vf)((row & 0xffffu) | (next << 16)); }
inline vf pairs_of_odd(vu row, vu next) { return (vf)((row >> 16) | (next & 0xffff0000u)); }
// a0 b0 a1 b1 ..., and where that ends.
constexpr int weave_low(int i) { return i % 2 * kLanes + i / 2; }
constexpr int weave_high(int i) { return weave_low(i) + kLanes / 2; }

// 32 lines over 32 k, all of them there; `along_k`: line i at from + i·ld, else k at from + k·ld.
template <Role role, bool along_k>
inline void pack_step(const bf16* from, int64_t ld, bf16* to) {
  constexpr bool transposes = (role == Role::kFirst) != along_k;
  Square square;
  if constexpr (along_k) {
    for (int64_t half = 0; half < 2; ++half) {
      load_square(from + half * kTileRows * ld, ld, square);
      if (transposes) transpose(square);
      store_square(to + half * kTileValues, square);
    }
  } else if constexpr (transposes) {
#pragma GCC unroll 2
    for (int64_t odd = 0; odd < 2; ++odd) {
      for (int j = 0; j < kLanes; ++j) {
        vu row, next;
        memcpy(&row, from + 2 * j * ld, sizeof row);
        memcpy(&next, from + (2 * j + 1) * ld, sizeof next);
        square[j] = odd ? pairs_of_odd(row, next) : pairs_of_even(row, next);
      }
      transpose(square);
      for (int j = 0; j < kLanes; ++j) memcpy(to + (2 * j + odd) * kTileDepth, &square[j], sizeof square[j]);
    }
  } else {
    for (int j = 0; j < kLanes; ++j) {
      vu row, next;
      memcpy(&row, from + 2 * j * ld, sizeof row);
      memcpy(&next, from + (2 * j + 1) * ld, sizeof next);
      const vf even = pairs_of_even(row, next), odd = pairs_of_odd(row, next);
      const vf low = shuffle<weave_low>(even, odd, EveryLane{}), high = shuffle<weave_high>(even, odd, EveryLane{});
      memcpy(to + j * kTileDepth, &low, sizeof low);
      memcpy(to + kTileValues + j * kTileDepth, &high, sizeof high);
    }
  }
}

// The same where only `lines` (up to 32) and `k` (up to 32) are there.
template <Role role, bool along_k>
void pack_part(const bf16* from, int64_t ld, int64_t lines, int64_t k, bf16* to) {
  alignas(64) bf16 part[kPanelStep];
  memset(part, 0, sizeof part);
  for (int64_t i = 0; i < (along_k ? lines : k); ++i)
    memcpy(part + i * kTileDepth, from + i * ld, static_cast<size_t>(along_k ? k : lines) * sizeof(bf16));
  pack_step<role, along_k>(part, kTileDepth, to);
}

// Panels [panel][step][2 tiles] of lines [line, line + 32 · panels) over k in [k0, k0 + k).
template <Role role, bool along_k>
void pack_panels_as(const Lines& m, int64_t line, int64_t panels, int64_t k0, int64_t k, bf16* to) {
  const int64_t steps = pieces_of(k, kTileDepth);
  const auto pack = [&](int64_t panel, int64_t step) {
    const int64_t at = line + panel * kPanelLines, k_at = step * kTileDepth;
    const int64_t there = least(kPanelLines, m.lines - at), depth = least(kTileDepth, k - k_at);
    const bf16* from = static_cast<const bf16*>(m.data) + (along_k ? at * m.ld + k0 + k_at : (k0 + k_at) * m.ld + at);
    bf16* out = to + (panel * steps + step) * kPanelStep;
    if (there == kPanelLines && depth == kTileDepth) {
      pack_step<role, along_k>(from, m.ld, out);
    } else {
      pack_part<role, along_k>(from, m.ld, there, depth, out);
    }
  };
  if (along_k) {  // in either case memory is read in the order it lies
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t step = 0; step < steps; ++step) pack(panel, step);
  } else {
    for (int64_t step = 0; step < steps; ++step)
      for (int64_t panel = 0; panel < panels; ++panel) pack(panel, step);
  }
}

template <Role role>
inline void pack_panels(const Lines& m, int64_t line, int64_t panels, int64_t k0, int64_t k, bf16* to) {
  if (m.along_k) {
    pack_panels_as<role, true>(m, line, panels, k0, k, to);
  } else {
    pack_panels_as<role, false>(m, line, panels, k0, k, to);
  }
}

}  // namespace
}  // namespace westwind
