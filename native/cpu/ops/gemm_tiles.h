// gemm of bf16 by bf16 on tiles. op(A) is packed once per block of rows and shared; a task packs its columns of op(B)
// once, block by block of K as its first rows need them, and keeps the sums of a block of C beside it in f32.
//
// An element's sum over K: one tile product per 32 k, in order, onto 0; where C is f32, K in parts of kSumDepth, each
// added to C. How C is cut into panels, blocks and tasks, and which operand comes first in a product, changes no bit.
#pragma once
#include "tile_panels.h"

namespace westwind {
namespace {

// Per core 48 KB and 2 MB of cache (Sapphire Rapids): a panel of A over kBlockDepth (16 KB) stays in the first level
// while those of B pass it; the second level holds the sums (512 KB), this block of A and B (384 KB) and the next.
constexpr int64_t kBlockDepth = 256;
constexpr int64_t kBlockRows = 512;
constexpr int64_t kBlockColumns = 256;
constexpr int64_t kLeastColumns = 128;  // of a task: reading A again from the last level costs 1 byte per 2 · columns
constexpr int64_t kLeastRows = 256;     // of a task: its B is packed for that many
constexpr int64_t kSumDepth = 8192;     // part of the result's bits
constexpr int64_t kPackedValues = 8 << 20;  // of A, 16 MB
constexpr int64_t kSharedRows = 2048;       // so many rows of A are packed at least, to pack B seldom
constexpr int64_t kTileSums = kTileRows * kTilePairs;
constexpr int64_t kPanelSums = 4 * kTileSums;  // of one panel of A by one of B: 2 × 2 tiles
constexpr int64_t kWorthTasks = 1 << 22;       // multiply-adds; fewer take less time than waking the threads

// Lines of memory that will be needed next, fetched into the second-level cache a few at a time.
struct Ahead {
  const char* row = nullptr;
  int64_t row_bytes = 0, stride = 0, rows = 0;
  int64_t at = 0;

  int64_t lines() const { return rows * pieces_of(row_bytes, 64); }
  void fetch(int64_t n) {
    for (; n > 0 && rows > 0; --n) {
      __builtin_prefetch(row + at, 0, 2);
      at += 64;
      if (at < row_bytes) continue;
      at = 0;
      row += stride;
      --rows;
    }
  }
};

// sums (+)= a · b over `steps` of k, for the tiles that have lines: kI of A's panel, kJ of B's.
template <int kI, int kJ>
void multiply_panels(Tiles& tiles, const bf16* a, const bf16* b, int64_t steps, float* sums, bool adds, Ahead* ahead,
                     int64_t fetches) {
  const auto each_sum = [&](const auto& f01, const auto& f10, const auto& f11) {
    if constexpr (kJ > 1) f01();
    if constexpr (kI > 1) f10();
    if constexpr (kI > 1 && kJ > 1) f11();
  };
  if (adds) {
    tiles.load<0>(sums, kTileBytes);
    each_sum([&] { tiles.load<1>(sums + kTileSums, kTileBytes); },
             [&] { tiles.load<2>(sums + 2 * kTileSums, kTileBytes); },
             [&] { tiles.load<3>(sums + 3 * kTileSums, kTileBytes); });
  } else {
    tiles.zero<0>();
    each_sum([&] { tiles.zero<1>(); }, [&] { tiles.zero<2>(); }, [&] { tiles.zero<3>(); });
  }
  for (int64_t step = 0; step < steps; ++step) {
    tiles.load<4>(a, kTileBytes);
    tiles.load<6>(b, kTileBytes);
    tiles.dpbf16<0, 4, 6>();
    if constexpr (kJ > 1) {
      tiles.load<7>(b + kTileValues, kTileBytes);
      tiles.dpbf16<1, 4, 7>();
    }
    if constexpr (kI > 1) {
      tiles.load<5>(a + kTileValues, kTileBytes);
      tiles.dpbf16<2, 5, 6>();
      if constexpr (kJ > 1) tiles.dpbf16<3, 5, 7>();
    }
    ahead->fetch(fetches);
    a += kPanelStep;
    b += kPanelStep;
  }
  tiles.store<0>(sums, kTileBytes);
  each_sum([&] { tiles.store<1>(sums + kTileSums, kTileBytes); },
           [&] { tiles.store<2>(sums + 2 * kTileSums, kTileBytes); },
           [&] { tiles.store<3>(sums + 3 * kTileSums, kTileBytes); });
}

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

// Rows [m0, m0 + rows) of C over k in [k0, k0 + depth), with the packed A of just that: per kBlockDepth of k its
// panels.
struct TileBlock {
  const Target& target;
  const bf16* a;
  Lines b;
  int64_t m0, rows, k0, depth;

  const bf16* panel_of_a(int64_t m, int64_t at) const {
    const int64_t all = pieces_of(rows, kPanelLines) * kPanelLines;
    return a + all * at + m * padded_depth(least(kBlockDepth, depth - at));
  }
};

// One task: rows [m, m + rows) within the block, columns [n, n + columns).
void multiply_task(const TileBlock& block, int64_t m, int64_t rows, int64_t n, int64_t columns, Shortage& shortage) {
  const int64_t wide = pieces_of(columns, kPanelLines), height = least(kBlockRows, rows);
  bf16* b = static_cast<bf16*>(scratch(Slot::kPackB, 2 * wide * kPanelLines * padded_depth(block.depth), shortage));
  float* sums =
      static_cast<float*>(scratch(Slot::kBlock, 4 * pieces_of(height, kPanelLines) * wide * kPanelSums, shortage));
  if (b == nullptr || sums == nullptr) return;
  Tiles tiles;
  for (int64_t i0 = 0; i0 < rows; i0 += kBlockRows) {
    const int64_t high = pieces_of(least(kBlockRows, rows - i0), kPanelLines);
    for (int64_t at = 0; at < block.depth; at += kBlockDepth) {
      const int64_t k = padded_depth(least(kBlockDepth, block.depth - at)), steps = k / kTileDepth;
      const bf16* a = block.panel_of_a(m + i0, at);
      const bool last = at + kBlockDepth >= block.depth;
      if (i0 == 0)
        pack_panels<Role::kSecond>(block.b, n, wide, block.k0 + at, least(kBlockDepth, block.depth - at),
                                   b + at * wide * kPanelLines);

      // Next comes this block's A at the next k, or that of the next rows.
      Ahead ahead;
      const int64_t next = last ? 0 : at + kBlockDepth, next_rows = i0 + (last ? kBlockRows : 0);
      if (next_rows < rows) {
        const int64_t next_lines = pieces_of(least(kBlockRows, rows - next_rows), kPanelLines) * kPanelLines;
        ahead.row = reinterpret_cast<const char*>(block.panel_of_a(m + next_rows, next));
        ahead.row_bytes = 2 * next_lines * padded_depth(least(kBlockDepth, block.depth - next));
        ahead.rows = 1;
      }
      const int64_t fetches = pieces_of(ahead.lines(), high * wide * steps);

      for (int64_t i = 0; i < high; ++i) {
        for (int64_t j = 0; j < wide; ++j) {
          const int64_t row = i0 + i * kPanelLines, column = j * kPanelLines;
          const int64_t left = rows - row, right = columns - column;
          float* sum = sums + (i * wide + j) * kPanelSums;
          const bf16 *of_a = a + i * kPanelLines * k, *of_b = b + (at * wide + j * k) * kPanelLines;
          const auto multiply = left > kTileRows ? (right > kTileRows ? multiply_panels<2, 2> : multiply_panels<2, 1>)
                                                 : (right > kTileRows ? multiply_panels<1, 2> : multiply_panels<1, 1>);
          multiply(tiles, of_a, of_b, steps, sum, at > 0, &ahead, fetches);
          for (int t = 0; last && t < 4; ++t) {
            const int64_t down = t / 2 * kTileRows, across = t % 2 * kTileRows;
            block.target.update(block.m0 + m + row + down, n + column + across, left - down, right - across,
                                sum + t * kTileSums);
          }
        }
      }
    }
  }
}

// Any shape: blocks of packed A, and tasks over them.
Status multiply_blocks(const GemmParams& p, bool parallel) {
  const bool rounds = p.c_type == DType::kBf16;
  const int64_t max_depth = rounds ? p.K : least(p.K, kSumDepth);
  int64_t max_rows = kPackedValues / max_depth / kBlockRows * kBlockRows;
  max_rows = least(max_rows < kSharedRows ? kSharedRows : max_rows, pieces_of(p.M, kPanelLines) * kPanelLines);
  Shortage shortage;
  bf16* packed = static_cast<bf16*>(scratch(Slot::kPackA, 2 * max_rows * padded_depth(max_depth), shortage));
  if (packed == nullptr) return shortage.status();
  const Lines a{p.a, p.lda, p.M, true, !p.trans_a}, b{p.b, p.ldb, p.N, true, p.trans_b};

  // Enough tasks for every thread: first of fewer columns, then of fewer rows, then of fewer columns still.
  const int64_t wanted = parallel ? 4 * threads() : 1;
  int64_t columns = least(kBlockColumns, pieces_of(p.N, kPanelLines) * kPanelLines);
  while (columns > kLeastColumns && pieces_of(p.N, columns) < wanted) columns -= kPanelLines;
  const int64_t most_parts = pieces_of(max_rows, kLeastRows);
  while (columns > kPanelLines && pieces_of(p.N, columns) * most_parts < wanted) columns -= kPanelLines;
  const int64_t column_tasks = pieces_of(p.N, columns);
  const int64_t row_tasks = least(pieces_of(wanted, column_tasks), most_parts);

  for (int64_t m0 = 0; m0 < p.M; m0 += max_rows) {
    const int64_t rows = least(max_rows, p.M - m0), panels = pieces_of(rows, kPanelLines);
    for (int64_t k0 = 0; k0 < p.K; k0 += max_depth) {
      const int64_t depth = least(max_depth, p.K - k0);
      constexpr int64_t kStrip = 8;  // panels packed by one task
      const int64_t strips = pieces_of(panels, kStrip);
      each(parallel, strips * pieces_of(depth, kBlockDepth), [&](int64_t task) {
        const int64_t at = task / strips * kBlockDepth, panel = task % strips * kStrip;
        const int64_t k = least(kBlockDepth, depth - at);
        pack_panels<Role::kFirst>(a, m0 + panel * kPanelLines, least(kStrip, panels - panel), k0 + at, k,
                                  packed + (panels * at + panel * padded_depth(k)) * kPanelLines);
      });
      const Target target{p.c, p.ldc, rounds, p.alpha, k0 == 0 ? p.beta : 1};
      const TileBlock block{target, packed, b, m0, rows, k0, depth};
      const int64_t part = pieces_of(pieces_of(rows, row_tasks), kPanelLines) * kPanelLines;
      each(parallel, pieces_of(rows, part) * column_tasks, [&](int64_t task) {
        const int64_t m = task / column_tasks * part, n = task % column_tasks * columns;
        multiply_task(block, m, least(part, rows - m), n, least(columns, p.N - n), shortage);
      });
    }
  }
  return shortage.status();
}

Status multiply_tiles(const GemmParams& p) { return multiply_blocks(p, p.M * p.N * p.K >= kWorthTasks); }

}  // namespace
}  // namespace westwind
