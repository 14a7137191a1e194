// gemm of bf16 by bf16 on tiles. op(A) is packed once per block of rows and shared; a task packs its columns of op(B)
// once, block by block of K as its first rows need them, and keeps the sums of a block of C beside it in f32.
//
// An element's sum over K: one tile product per 32 k, in order, onto 0; where C is f32, K in parts of kSumDepth, each
// added to C. How C is cut into panels, blocks and tasks, and which operand comes first in a product, changes no bit.
#pragma once
#include "fetch_ahead.h"
#include "tile_panels.h"
#include "tile_sums.h"

namespace westwind {
namespace {

// Per core 48 KB and 2 MB of cache (Sapphire Rapids): a panel of A over kBlockDepth (16 KB) stays in the first level
// while those of B pass it; the second level holds the sums (512 KB), this block of A and B (384 KB) and the next.
constexpr int64_t kBlockDepth = 256;
constexpr int64_t kBlockRows = 512;
constexpr int64_t kBlockColumns = 256;
constexpr int64_t kLeastColumns = 128;      // of a task: reading A again costs 1 byte per `columns` operations
constexpr int64_t kLeastRows = 256;         // of a task: its B is packed for that many
constexpr int64_t kSumDepth = 8192;         // part of the result's bits
constexpr int64_t kPackedValues = 8 << 20;  // of A, 16 MB
constexpr int64_t kSharedRows = 2048;       // so many rows of A are packed at least, to pack B seldom
constexpr int64_t kWorthTasks = 1 << 22;    // multiply-adds of whole panels; fewer take less time than waking threads

// sums (+)= a · b over `steps` of k, for the tiles that have lines: kI of A's panel, kJ of B's.
template <int kI, int kJ>
void multiply_panels(Tiles& tiles, const bf16* a, const bf16* b, int64_t steps, float* sums, bool adds, Ahead& ahead) {
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
    ahead.fetch();
    a += kPanelStep;
    b += kPanelStep;
  }
  tiles.store<0>(sums, kTileBytes);
  each_sum([&] { tiles.store<1>(sums + kTileSums, kTileBytes); },
           [&] { tiles.store<2>(sums + 2 * kTileSums, kTileBytes); },
           [&] { tiles.store<3>(sums + 3 * kTileSums, kTileBytes); });
}

// Rows [m0, m0 + rows) of C over k in [k0, k0 + depth), with the packed A of just that: per kBlockDepth of k its
// panels.
struct TileBlock {
  const Target& target;
  const bf16* a;
  Lines b;
  int64_t m0, rows, k0, depth;

  int64_t depth_at(int64_t at) const { return least(kBlockDepth, depth - at); }
  const bf16* panel_of_a(int64_t m, int64_t at) const {
    return a + pieces_of(rows, kPanelLines) * kPanelLines * at + m * padded_depth(depth_at(at));
  }
};

// Rows [m, m + rows) within a block, columns [n, n + columns); b: room for these columns of op(B), packed; sums: for
// kBlockRows of them.
struct TileTask {
  const TileBlock& block;
  int64_t m, rows, n, columns;
  bf16* b;
  float* sums;

  int64_t wide() const { return pieces_of(columns, kPanelLines); }
  int64_t high(int64_t row) const { return pieces_of(least(kBlockRows, rows - row), kPanelLines); }
  bf16* panel_of_b(int64_t j, int64_t at) const {
    return b + (at * wide() + j * padded_depth(block.depth_at(at))) * kPanelLines;
  }

  // What comes after rows from `row` on at `at`: their A at the next k, or that of the next rows; B as it is stored if
  // this is its first use.
  Ahead after(int64_t row, int64_t at) const {
    const int64_t calls = high(row) * wide() * (padded_depth(block.depth_at(at)) / kTileDepth);
    Ahead ahead;
    const bool last = at + kBlockDepth >= block.depth;
    const int64_t then = last ? 0 : at + kBlockDepth, then_row = row + (last ? kBlockRows : 0);
    if (then_row >= rows) return ahead;
    const int64_t depth = block.depth_at(then), lines = kPanelLines * padded_depth(depth);
    ahead.a = Region(block.panel_of_a(m + then_row, then), high(then_row) * lines, 0, 1).over(calls);
    if (then_row > 0) {
      ahead.b = Region(panel_of_b(0, then), wide() * lines, 0, 1).over(calls);
    } else {
      const bf16* stored = static_cast<const bf16*>(block.b.data);
      const int64_t k = block.k0 + then;
      ahead.b = block.b.along_k ? Region(stored + n * block.b.ld + k, depth, block.b.ld, columns).over(calls)
                                : Region(stored + k * block.b.ld + n, columns, block.b.ld, depth).over(calls);
    }
    return ahead;
  }

  // Rows from `row` on, kBlockRows at most, over the block of K at `at`.
  void multiply(Tiles& tiles, int64_t row, int64_t at) const {
    const int64_t k = padded_depth(block.depth_at(at)), steps = k / kTileDepth;
    const bool last = at + kBlockDepth >= block.depth;
    Ahead ahead = after(row, at);
    float* sum = sums;
    for (int64_t i = row; i < least(row + kBlockRows, rows); i += kPanelLines) {
      const bf16* a = block.panel_of_a(m + i, at);
      for (int64_t j = 0; j < columns; j += kPanelLines, sum += kPanelSums) {
        const int64_t down = rows - i, across = columns - j;
        if (last) ahead.c = block.target.region(block.m0 + m + i, n + j, down, across).over(steps);
        const auto multiply = down > kTileRows ? (across > kTileRows ? multiply_panels<2, 2> : multiply_panels<2, 1>)
                                               : (across > kTileRows ? multiply_panels<1, 2> : multiply_panels<1, 1>);
        multiply(tiles, a, panel_of_b(j / kPanelLines, at), steps, sum, at > 0, ahead);
        for (int64_t t = 0; last && t < 4; ++t) {
          const int64_t low = t / 2 * kTileRows, right = t % 2 * kTileRows;
          block.target.update(block.m0 + m + i + low, n + j + right, down - low, across - right, sum + t * kTileSums);
        }
      }
    }
  }

  void run() const {
    Tiles tiles;
    for (int64_t row = 0; row < rows; row += kBlockRows) {
      for (int64_t at = 0; at < block.depth; at += kBlockDepth) {
        if (row == 0)
          pack_panels<Role::kSecond>(block.b, n, wide(), block.k0 + at, block.depth_at(at), panel_of_b(0, at));
        multiply(tiles, row, at);
      }
    }
  }
};

void multiply_task(const TileBlock& block, int64_t m, int64_t rows, int64_t n, int64_t columns, Shortage& shortage) {
  const int64_t wide = pieces_of(columns, kPanelLines), high = pieces_of(least(kBlockRows, rows), kPanelLines);
  void* b = scratch(Slot::kPackB, 2 * wide * kPanelLines * padded_depth(block.depth), shortage);
  void* sums = scratch(Slot::kBlock, 4 * high * wide * kPanelSums, shortage);
  if (b == nullptr || sums == nullptr) return;
  TileTask{block, m, rows, n, columns, static_cast<bf16*>(b), static_cast<float*>(sums)}.run();
}

// The most columns of a task that leave four tasks to a thread, and the busiest thread about what it has of the least.
int64_t columns_of_task(int64_t N, int64_t threads) {
  const auto busiest = [&](int64_t columns) { return pieces_of(pieces_of(N, columns), threads) * columns; };
  int64_t columns = least(kBlockColumns, pieces_of(N, kPanelLines) * kPanelLines);
  while (columns > kLeastColumns &&
         (pieces_of(N, columns) < 4 * threads || busiest(columns) * 64 > busiest(kLeastColumns) * 65))
    columns -= kPanelLines;
  return columns;
}

// Any shape: blocks of packed A, and tasks over them.
Status multiply_blocks(const GemmParams& p) {
  const bool parallel = pieces_of(p.M, kPanelLines) * kPanelLines * p.N * p.K >= kWorthTasks;
  const bool rounds = p.c_type == DType::kBf16;
  const int64_t max_depth = rounds ? p.K : least(p.K, kSumDepth);
  int64_t max_rows = kPackedValues / max_depth / kBlockRows * kBlockRows;
  max_rows = least(max_rows < kSharedRows ? kSharedRows : max_rows, pieces_of(p.M, kPanelLines) * kPanelLines);
  Shortage shortage;
  bf16* packed = static_cast<bf16*>(scratch(Slot::kPackA, 2 * max_rows * padded_depth(max_depth), shortage));
  if (packed == nullptr) return shortage.status();
  const Lines a{p.a, p.lda, p.M, true, !p.trans_a}, b{p.b, p.ldb, p.N, true, p.trans_b};

  // Enough tasks for every thread; two each by fewer rows, for which B is packed again, then by fewer columns still.
  const int64_t all = parallel ? threads() : 1, most_parts = pieces_of(max_rows, kLeastRows);
  int64_t columns = columns_of_task(p.N, all);
  while (columns > kPanelLines && pieces_of(p.N, columns) * most_parts < 2 * all) columns -= kPanelLines;
  const int64_t column_tasks = pieces_of(p.N, columns);
  const int64_t row_tasks = least(pieces_of(2 * all, column_tasks), most_parts);

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

}  // namespace
}  // namespace westwind
