// gemm of few rows by a B of which every column is contiguous along k: decoding, where all time goes into reading B
// once. The operands change places: 16 columns of B are a tile as they lie in memory, and the rows of A, packed, are
// the second operand. The products commute and K runs in the same order, so the bits are those of gemm_tiles.h.
#pragma once
#include "gemm_tiles.h"

namespace westwind {
namespace {

constexpr int64_t kFewRows = 8;
constexpr int64_t kThinLines = 512;         // columns of B in a task, at most
constexpr int64_t kWorthReading = 1 << 17;  // values of B; fewer are read before other threads wake
constexpr int64_t kAhead = 8;  // steps of k: 16 KB on their way, past the cache whose sets the strides share

inline bool thin(const GemmParams& p) { return p.trans_b && p.M <= kPanelLines; }

// sums = 32 columns of B, as they lie, · kJ tiles of rows of A, over whole steps; `next`: the columns that follow.
template <int kJ>
__attribute__((noinline)) void multiply_lines(Tiles& tiles, const bf16* lines, int64_t ld, const bf16* rows,
                                              int64_t steps, const bf16* next, float* sums) {
  const int64_t stride = ld * static_cast<int64_t>(sizeof(bf16));
  tiles.zero<0>();
  tiles.zero<2>();
  if constexpr (kJ > 1) {
    tiles.zero<1>();
    tiles.zero<3>();
  }
  for (int64_t step = 0; step < steps; ++step, rows += kPanelStep) {
    const bf16* at = lines + step * kTileDepth;
    const bf16* soon = step + kAhead < steps ? at + kAhead * kTileDepth : next + (step + kAhead - steps) * kTileDepth;
    tiles.load<6>(rows, kTileBytes);
    tiles.load<4>(at, stride);
    tiles.dpbf16<0, 4, 6>();
    for (int64_t i = 0; i < kTileRows; ++i, soon += ld) __builtin_prefetch(soon, 0, 2);
    tiles.load<5>(at + kTileRows * ld, stride);
    tiles.dpbf16<2, 5, 6>();
    for (int64_t i = 0; i < kTileRows; ++i, soon += ld) __builtin_prefetch(soon, 0, 2);
    if constexpr (kJ > 1) {
      tiles.load<7>(rows + kTileValues, kTileBytes);
      tiles.dpbf16<1, 4, 7>();
      tiles.dpbf16<3, 5, 7>();
    }
  }
  tiles.store<0>(sums, kTileBytes);
  tiles.store<2>(sums + 2 * kTileSums, kTileBytes);
  if constexpr (kJ > 1) {
    tiles.store<1>(sums + kTileSums, kTileBytes);
    tiles.store<3>(sums + 3 * kTileSums, kTileBytes);
  }
}

// Columns [begin, end) of C; begin is a multiple of 32. `rows`: all of A, packed as one panel.
template <int kJ>
void multiply_columns(const GemmParams& p, const bf16* rows, int64_t begin, int64_t end) {
  const bool rounds = p.c_type == DType::kBf16;
  const int64_t max_depth = rounds ? p.K : least(p.K, kSumDepth);
  const Lines b{p.b, p.ldb, p.N, true, true};
  alignas(64) float sums[kPanelSums];
  alignas(64) bf16 part[kPanelStep];
  Ahead nothing;
  Tiles tiles;
  for (int64_t n = begin; n < end; n += kPanelLines) {
    const bool whole = n + kPanelLines <= p.N;
    for (int64_t k0 = 0; k0 < p.K; k0 += max_depth) {
      const int64_t depth = least(max_depth, p.K - k0), steps = whole ? depth / kTileDepth : 0;
      const bf16* of_b = static_cast<const bf16*>(p.b) + n * p.ldb + k0;
      const bf16* of_a = rows + k0 / kTileDepth * kPanelStep;
      const bool more = k0 + depth < p.K;
      multiply_lines<kJ>(tiles, of_b, p.ldb, of_a, steps, more ? of_b + depth : of_b + kPanelLines * p.ldb - k0, sums);
      for (int64_t step = steps; step < pieces_of(depth, kTileDepth); ++step) {  // what does not fill a tile
        const int64_t at = step * kTileDepth;
        pack_panels<Role::kFirst>(b, n, 1, k0 + at, least(kTileDepth, depth - at), part);
        multiply_panels<2, kJ>(tiles, part, of_a + step * kPanelStep, 1, sums, true, nothing);
      }
      const Target target{p.c, p.ldc, rounds, p.alpha, k0 == 0 ? p.beta : 1};
      for (int64_t i = 0; i < 2; ++i) {
        for (int64_t j = 0; j < kJ; ++j) {
          Square square;
          float* sum = sums + (2 * i + j) * kTileSums;
          for (int64_t line = 0; line < kTileRows; ++line) square[line] = load(sum + line * kTilePairs);
          transpose(square);
          for (int64_t line = 0; line < kTileRows; ++line) store(sum + line * kTilePairs, square[line]);
          target.update(j * kTileRows, n + i * kTileRows, p.M - j * kTileRows, p.N - n - i * kTileRows, sum);
        }
      }
    }
  }
}

// At most kFewRows rows that are contiguous along k as the first tiles of a panel: pair by pair takes less than a
// transpose of mostly zeros: 16 stores a row and step of k, against 128 shuffles.
void pack_few(const GemmParams& p, bf16* rows) {
  for (int64_t k = 0; k < p.K; k += kTileDepth, rows += kPanelStep) {
    memset(rows, 0, kTileSize);
    for (int64_t m = 0; m < p.M; ++m) {
      const bf16* from = static_cast<const bf16*>(p.a) + m * p.lda + k;
      bf16 line[kTileDepth] = {};
      if (k + kTileDepth <= p.K) {
        memcpy(line, from, sizeof line);
      } else {
        memcpy(line, from, static_cast<size_t>(p.K - k) * sizeof(bf16));
      }
      for (int64_t pair = 0; pair < kTilePairs; ++pair)
        memcpy(rows + pair * kTileDepth + 2 * m, line + 2 * pair, 2 * sizeof(bf16));
    }
  }
}

Status multiply_thin(const GemmParams& p) {
  Shortage shortage;
  bf16* rows = static_cast<bf16*>(scratch(Slot::kPackA, 2 * kPanelLines * padded_depth(p.K), shortage));
  if (rows == nullptr) return shortage.status();
  if (p.M <= kFewRows && !p.trans_a) {
    pack_few(p, rows);
  } else {
    pack_panels<Role::kSecond>({p.a, p.lda, p.M, true, !p.trans_a}, 0, 1, 0, p.K, rows);
  }
  const bool parallel = p.N * p.K >= kWorthReading;
  const int64_t wanted = pieces_of(pieces_of(p.N, 8 * threads()), kPanelLines) * kPanelLines;
  const int64_t lines = parallel ? least(wanted, kThinLines) : p.N;
  each(parallel, pieces_of(p.N, lines), [&](int64_t task) {
    const int64_t begin = task * lines, end = least(p.N, begin + lines);
    if (p.M > kTileRows) {
      multiply_columns<2>(p, rows, begin, end);
    } else {
      multiply_columns<1>(p, rows, begin, end);
    }
  });
  return shortage.status();
}

}  // namespace
}  // namespace westwind
