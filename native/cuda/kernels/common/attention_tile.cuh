// What forward and backward of attention share on tensor cores with mma.sync: where logical keys lie, which steps of
// keys are seen at all, copies of rows into shared memory, and the products of 16 rows of a warp with a tile there.
//
// A tile in shared memory is [rows, kD] of bf16, swizzled (mma.cuh); columns from D to kD and rows that do not exist
// are zeros, which add nothing to any sum.
#pragma once
#include "cp_async.cuh"
#include "mma.cuh"
#include "params/attention.h"

namespace westwind::attention {

constexpr int kThreads = kAttentionThreads;
constexpr int kWarps = kThreads / 32;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / 32; }

// 2^x within two units of the last place; 0 from −150 down.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Bytes from the beginning of a tile to a 16-byte piece of it.
template <int kD>
__device__ __forceinline__ uint32_t tile_offset(int row, int piece) {
  return swizzled<2 * kD>(row, piece);
}

// body(row, piece, offset) for this thread's share of the 16-byte pieces of a tile of kRows rows: neighbouring threads
// have neighbouring pieces.
template <int kD, int kRows, class Body>
__device__ __forceinline__ void for_pieces(const Body& body) {
  constexpr int kPieces = kD / 8;
  if constexpr (kThreads % kPieces == 0) {
    constexpr int kAtATime = kThreads / kPieces;
    const int first = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
    const uint32_t offset = tile_offset<kD>(first, piece);
    if (kAtATime > kRows && first >= kRows) return;
#pragma unroll
    for (int row = 0; row < kRows; row += kAtATime)
      body(first + row, piece, kAtATime % 8 == 0 ? offset + row * kD * 2 : tile_offset<kD>(first + row, piece));
  } else {
#pragma unroll
    for (int base = 0; base < kRows * kPieces; base += kThreads) {
      const int i = base + threadIdx.x, row = i / kPieces, piece = i % kPieces;
      if (kRows * kPieces % kThreads == 0 || i < kRows * kPieces) body(row, piece, tile_offset<kD>(row, piece));
    }
  }
}

// Starts copying a tile of kRows rows, `row_bytes` apart in the tensor; of these only the first `rows` exist, at least
// one.
template <int kD, int kRows>
__device__ __forceinline__ void copy_rows(uint32_t tile, const void* first, int row_bytes, int rows, int D) {
  for_pieces<kD, kRows>([&](int row, int piece, uint32_t offset) {
    const bool inside = piece * 8 < D;
    const char* from = static_cast<const char*>(first) + int64_t{min(row, rows - 1)} * row_bytes;
    cp_async_16(tile + offset, from + (inside ? piece * 16 : 0), inside && row < rows);
  });
}

// From the address of a piece of a tile to that of the piece `pieces` (even) further in the same row, where the first
// has an index of 0 or 1. One instruction, so that no register has to hold the address of each column.
template <int kD>
__device__ __forceinline__ uint32_t pieces_on(uint32_t address, int pieces) {
  constexpr int kSwizzled = (kD / 8 & -(kD / 8)) < 8 ? (kD / 8 & -(kD / 8)) : 8;  // pieces permuted among themselves
  return (address ^ (pieces % kSwizzled * 16)) + pieces / kSwizzled * kSwizzled * 16;
}

// A [16, 16] operand: rows row .. row + 15 of a tile, columns 16·k ..
template <int kD>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], uint32_t tile, int row, int k) {
  ldmatrix_x4(a, pieces_on<kD>(tile + tile_offset<kD>(row + lane_id() % 16, lane_id() / 16), 2 * k));
}

// c[j] += A · (rows 8j .. of the tile)ᵀ over kD columns: kRowTiles times 16 rows against kN rows of the tile.
// load(k, a) gives the A operands of columns 16·k ..
template <int kD, int kN, int kRowTiles, class LoadA>
__device__ __forceinline__ void multiply_rows(float (&c)[kRowTiles][kN / 8][4], uint32_t tile, const LoadA& load) {
  const uint32_t first = tile + tile_offset<kD>(lane_id() / 16 * 8 + lane_id() % 8, lane_id() / 8 % 2);
#pragma unroll
  for (int k = 0; k < kD / 16; ++k) {
    uint32_t a[kRowTiles][4];
    load(k, a);
#pragma unroll
    for (int j = 0; j < kN / 16; ++j) {
      uint32_t b[4];
      ldmatrix_x4(b, pieces_on<kD>(first, 2 * k) + 16 * j * kD * 2);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_bf16(c[r][2 * j], a[r], b[0], b[1]);
        mma_bf16(c[r][2 * j + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// sums += weights · tile: weights [16 rows, kN] as they come out of multiply_rows, rounded to bf16; tile [kN, kD].
template <int kD, int kN, int kRowTiles>
__device__ __forceinline__ void add_product(float (&sums)[kRowTiles][kD / 8][4],
                                            const float (&weights)[kRowTiles][kN / 8][4], uint32_t tile) {
  const uint32_t first = tile + tile_offset<kD>(lane_id() % 16, lane_id() / 16);
#pragma unroll
  for (int k = 0; k < kN / 16; ++k) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const float(&low)[4] = weights[r][2 * k];
      const float(&high)[4] = weights[r][2 * k + 1];
      a[r][0] = pack_bf16(low[0], low[1]), a[r][1] = pack_bf16(low[2], low[3]);
      a[r][2] = pack_bf16(high[0], high[1]), a[r][3] = pack_bf16(high[2], high[3]);
    }
#pragma unroll
    for (int d = 0; d < kD / 16; ++d) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, pieces_on<kD>(first, 2 * d) + 16 * k * kD * 2);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_bf16(sums[r][2 * d], a[r], b[0], b[1]);
        mma_bf16(sums[r][2 * d + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// Writes 16 rows of sums, times factor(0) for rows 0 .. 7 and factor(1) for the rest of this lane, through 16 rows of
// shared memory that are the warp's own, as whole 16-byte pieces. `to(i)`: where row i goes; null: nowhere.
template <int kD, class Factor, class To>
__device__ __forceinline__ void write_rows(const float (&sums)[kD / 8][4], uint32_t tile, int row, int D,
                                           const Factor& factor, const To& to) {
  const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int d = 0; d < kD / 8; ++d) {
      const uint32_t pair = pack_bf16(sums[d][2 * half] * factor(half), sums[d][2 * half + 1] * factor(half));
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(tile + tile_offset<kD>(row + g + 8 * half, d) + 4 * t), "r"(pair)
                   : "memory");
    }
  __syncwarp();
  constexpr int kPieces = kD / 8;
#pragma unroll
  for (int base = 0; base < 16 * kPieces; base += 32) {
    const int i = (base + lane_id()) / kPieces, piece = (base + lane_id()) % kPieces;
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(tile + tile_offset<kD>(row + i, piece))
                 : "memory");
    bf16* out = to(i);
    if (out != nullptr && piece * 8 < D) *reinterpret_cast<uint4*>(out + piece * 8) = v;
  }
  __syncwarp();
}

// Positions of rows from .. to − 1, to > from: a range that holds them all.
__device__ __forceinline__ PositionRange range_of(const PositionRange* ranges, int from, int to) {
  PositionRange all = ranges[from / kPositionRows];
  for (int i = from / kPositionRows + 1; i <= (to - 1) / kPositionRows; ++i) {
    all.low = min(all.low, ranges[i].low);
    all.high = max(all.high, ranges[i].high);
  }
  return all;
}

// The logical keys of a query tile, in steps of kStep from a multiple of kStep on.
template <int kStep>
struct KeySteps {
  int prefix_rows, prefix_first, own_first;  // key j < prefix_rows is row prefix_first + j, another own_first + j
  int seen;                                  // keys that the last row of the tile sees
  int window;
  const PositionRange* ranges;
  PositionRange queries;

  __device__ KeySteps(const AttentionTile& tile, const AttentionPlan& plan, const Segments& g)
      : prefix_rows(tile.prefix_rows),
        prefix_first(tile.prefix_first),
        own_first(tile.start - tile.prefix_rows),
        seen(tile.prefix_rows + tile.first - tile.start + tile.rows),
        window(g.window),
        ranges(plan.ranges),
        queries{0, 0} {
    if (window > 0) queries = range_of(ranges, tile.first, tile.first + tile.rows);
  }

  // Starts copying a step of K and, behind it, V. Key j of the tensor lies at k + row(j)·row_bytes, its value v_after_k
  // bytes behind.
  template <int kD>
  __device__ __forceinline__ void copy(uint32_t tile, const void* k, int row_bytes, int64_t v_after_k, int step,
                                       int D) const {
    for_pieces<kD, kStep>([&](int i, int piece, uint32_t offset) {
      const bool inside = piece * 8 < D;
      const int key = step * kStep + i;
      const char* from = static_cast<const char*>(k) + int64_t{row(min(key, seen - 1))} * row_bytes;
      from += inside ? piece * 16 : 0;
      cp_async_16(tile + offset, from, inside && key < seen);
      cp_async_16(tile + offset + kStep * kD * 2, from + v_after_k, inside && key < seen);
    });
  }

  __device__ int count() const { return (seen + kStep - 1) / kStep; }
  __device__ int row(int key) const { return key + (key < prefix_rows ? prefix_first : own_first); }
  __device__ PositionRange range(int step) const {
    const int from = step * kStep, to = min(from + kStep, seen);
    PositionRange all{INT32_MAX, 0};
    if (from < prefix_rows) all = range_of(ranges, prefix_first + from, prefix_first + min(to, prefix_rows));
    if (to > prefix_rows) {
      const PositionRange own = range_of(ranges, own_first + max(from, prefix_rows), own_first + to);
      all = {min(all.low, own.low), max(all.high, own.high)};
    }
    return all;
  }

  // The first step from `step` on that the window does not hide; count() or more: none. By whole warps.
  __device__ int visible(int step) const {
    if (window <= 0) return step;
    for (; step < count(); step += 32) {
      const int mine = step + lane_id();
      const unsigned seen_by_some = __ballot_sync(~0u, mine < count() && queries.low - range(mine).high < window);
      if (seen_by_some != 0) return step + __ffs(static_cast<int>(seen_by_some)) - 1;
    }
    return step;
  }
  // Whether the window may hide a key of a step from a query of the tile.
  __device__ bool window_cuts(int step) const { return window > 0 && queries.high - range(step).low >= window; }
};

// Sets what row r of the warp does not see to `hidden`, for scores [16 rows, kStep] of a step. `first_seen`: how many
// keys the first of the warp's rows sees, one more with each row. `first_row`: of the tensor; tail rows have the
// position of the last.
template <int kStep, int kRowTiles>
__device__ __forceinline__ void hide_keys(float (&scores)[kRowTiles][kStep / 8][4], const KeySteps<kStep>& keys,
                                          const Segments& g, int step, int first_seen, int first_row, int last_row,
                                          bool by_window, float hidden) {
  const int t = lane_id() % 4;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 16 * r + 8 * half + lane_id() / 4;
      const int seen = first_seen + row - step * kStep;  // of this step
      const int oldest = by_window ? g.positions[min(first_row + row, last_row)] - g.window : 0;
#pragma unroll
      for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = 8 * j + 2 * t + e;
          bool visible = key < seen;
          if (by_window && visible && step * kStep + key < keys.seen)
            visible = g.positions[keys.row(step * kStep + key)] > oldest;
          if (!visible) scores[r][j][2 * half + e] = hidden;
        }
    }
}

}  // namespace westwind::attention
