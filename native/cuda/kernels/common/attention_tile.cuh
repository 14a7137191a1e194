// What forward and backward of attention share on tensor cores with mma.sync: where logical keys lie, which steps of
// keys are seen at all, copies of rows into shared memory, and the products of 16 rows of a warp with a tile there.
//
// A tile in shared memory is [rows, kD] of bf16, swizzled (mma.cuh); columns from D to kD and rows that do not exist
// are zeros, which add nothing to any sum.
#pragma once
#include <utility>

#include "cp_async.cuh"
#include "mma.cuh"
#include "params/attention.h"

namespace westwind::attention {

constexpr int kThreads = kAttentionThreads;
constexpr int kWarps = kThreads / 32;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / 32; }

// x, of which the compiler knows nothing: what is computed from it stays where it is needed, and no register holds it
// through a loop.
__device__ __forceinline__ int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

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

// body<0>(), body<1>() .. body<N − 1>(), as template arguments: what becomes part of an instruction must be a constant.
template <class Body, int... kI>
__device__ __forceinline__ void unroll(const Body& body, std::integer_sequence<int, kI...>) {
  (body.template operator()<kI>(), ...);
}
template <int N, class Body>
__device__ __forceinline__ void unroll(const Body& body) {
  unroll(body, std::make_integer_sequence<int, N>{});
}

// This thread's share of the 16-byte pieces of a tile: neighbouring threads have neighbouring pieces.
template <int kD>
struct CopyShare {
  static constexpr int kPieces = kD / 8;  // of a row
  static constexpr int kAtATime = kThreads / kPieces;
  // Whether a thread has the same piece of rows so far apart that it lies in each as in the first.
  static constexpr bool kSamePlace = kThreads % kPieces == 0 && kAtATime % 8 == 0;

  // body(row, piece, offset) for each piece of kRows rows.
  template <int kRows, class Body>
  static __device__ __forceinline__ void for_each(const Body& body) {
    if constexpr (kSamePlace) {
      const int first = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
      const uint32_t offset = tile_offset<kD>(first, piece);
      if (kAtATime > kRows && first >= kRows) return;
#pragma unroll
      for (int row = 0; row < kRows; row += kAtATime) body(first + row, piece, offset + row * kD * 2);
    } else {
#pragma unroll
      for (int base = 0; base < kRows * kPieces; base += kThreads) {
        const int i = base + threadIdx.x, row = i / kPieces, piece = i % kPieces;
        if (kRows * kPieces % kThreads == 0 || i < kRows * kPieces) body(row, piece, tile_offset<kD>(row, piece));
      }
    }
  }
};

// Rows of one head of a tensor, `row_bytes` apart, each head_at bytes behind the beginning of its token.
struct HeadRows {
  const void* tensor;
  int head_at, row_bytes;

  __device__ __forceinline__ const char* at(int row, int bytes) const {
    return static_cast<const char*>(tensor) + int64_t{row} * row_bytes + (head_at + bytes);
  }
};

// Starts copying rows `row` .. row + kRows − 1, all of which exist and have kD columns, to a tile; and, where kTwo,
// those of another head `second` bytes behind it to the tile behind.
template <int kD, int kRows, bool kTwo>
__device__ __forceinline__ void copy_whole_rows(uint32_t tile, const HeadRows& from, int row, int64_t second) {
  using Share = CopyShare<kD>;
  static_assert(Share::kSamePlace);
  const int mine = threadIdx.x / Share::kPieces, piece = threadIdx.x % Share::kPieces;
  if (Share::kAtATime > kRows && mine >= kRows) return;
  const uint32_t to = tile + tile_offset<kD>(mine, piece);
  unroll<(kRows + Share::kAtATime - 1) / Share::kAtATime>([&]<int kI>() {
    constexpr int kAfter = kI * Share::kAtATime * kD * 2;
    const char* here = from.at(row + mine + kI * Share::kAtATime, piece * 16);
    cp_async_16<kAfter>(to, here);
    if constexpr (kTwo) cp_async_16<kAfter + kRows * kD * 2>(to, here + second);
  });
}

// Starts copying rows `row` .. row + rows − 1 to a tile of kRows rows; at least one.
template <int kD, int kRows>
__device__ __forceinline__ void copy_rows(uint32_t tile, const HeadRows& from, int row, int rows, int D) {
  if constexpr (CopyShare<kD>::kSamePlace) {
    if (rows >= kRows && D == kD) return copy_whole_rows<kD, kRows, false>(tile, from, row, 0);
  }
  CopyShare<kD>::template for_each<kRows>([&](int i, int piece, uint32_t offset) {
    const bool inside = piece * 8 < D;
    cp_async_16(tile + offset, from.at(row + min(i, rows - 1), inside ? piece * 16 : 0), inside && i < rows);
  });
}

// Where this lane reads the operands of the tensor cores from a tile, or from the rows of it that begin at `first`: one
// address for each column that the swizzle moves elsewhere, the rest is in the instruction. So a step computes
// kAddresses of them, whatever it multiplies.
template <int kD>
struct Operands {
  static constexpr int kSwizzled = (kD / 8 & -(kD / 8)) < 8 ? (kD / 8 & -(kD / 8)) : 8;  // pieces of a row, as permuted
  static constexpr int kAddresses = kSwizzled / 2;
  uint32_t at[kAddresses];

  __device__ __forceinline__ explicit Operands(uint32_t first) {
    at[0] = first;
#pragma unroll
    for (int i = 1; i < kAddresses; ++i) at[i] = first ^ (32 * i);
  }
  // `first` for a tile and a row of it, a multiple of 8.
  static __device__ __forceinline__ uint32_t lane_address(uint32_t tile, int row) {
    return tile + tile_offset<kD>(row + lane_id() % 16, lane_id() / 16);
  }

  // Four matrices of 8 × 8: rows 16·kRow .. + 7, rows + 8 .. + 15, both at columns 16·kColumn .. + 7, then + 8 .. + 15,
  // of the tile kAfter bytes behind.
  template <int kRow, int kColumn, int kAfter>
  __device__ __forceinline__ void load(uint32_t (&r)[4]) const {
    ldmatrix_x4<kAfter + kOffset<kRow, kColumn>>(r, at[kColumn % kAddresses]);
  }
  template <int kRow, int kColumn, int kAfter>
  __device__ __forceinline__ void load_transposed(uint32_t (&r)[4]) const {
    ldmatrix_x4_trans<kAfter + kOffset<kRow, kColumn>>(r, at[kColumn % kAddresses]);
  }

 private:
  template <int kRow, int kColumn>
  static constexpr int kOffset = 16 * kRow * kD * 2 + kColumn / kAddresses * kSwizzled * 16;
};

// The A operands of kRowTiles times 16 rows of the tile kAfter bytes behind `tile`: loaded at each use, or once and for
// all.
template <int kD, int kRowTiles, bool kInRegisters, int kAfter = 0>
struct RowOperands {
  Operands<kD> tile;

  __device__ __forceinline__ explicit RowOperands(const Operands<kD>& tile_) : tile(tile_) {}
  template <int kColumn>
  __device__ __forceinline__ void load(uint32_t (&a)[kRowTiles][4]) const {
    unroll<kRowTiles>([&]<int kR>() { tile.template load<kR, kColumn, kAfter>(a[kR]); });
  }
};
template <int kD, int kRowTiles, int kAfter>
struct RowOperands<kD, kRowTiles, true, kAfter> {
  uint32_t part[kD / 16][kRowTiles][4];

  __device__ __forceinline__ explicit RowOperands(const Operands<kD>& tile) {
    const RowOperands<kD, kRowTiles, false, kAfter> rows(tile);
    unroll<kD / 16>([&]<int kColumn>() { rows.template load<kColumn>(part[kColumn]); });
  }
  template <int kColumn>
  __device__ __forceinline__ void load(uint32_t (&a)[kRowTiles][4]) const {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int e = 0; e < 4; ++e) a[r][e] = part[kColumn][r][e];
  }
};

// c[r][j] = start(r, j) + A · (rows 8j .. of the tile)ᵀ over kD columns, for the kRowTiles times 16 rows of A and kN
// rows of the tile kAfter bytes behind `tile`.
template <int kAfter, int kD, int kN, int kRowTiles, class Rows, class Start>
__device__ __forceinline__ void multiply_rows(float (&c)[kRowTiles][kN][4], const Rows& rows, const Operands<kD>& tile,
                                              const Start& start) {
  unroll<kD / 16>([&]<int kK>() {
    uint32_t a[kRowTiles][4];
    rows.template load<kK>(a);
    unroll<kN / 2>([&]<int kJ>() {
      uint32_t b[4];
      tile.template load<kJ, kK, kAfter>(b);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        if constexpr (kK == 0) {
          mma_bf16(c[r][2 * kJ], a[r], b[0], b[2], start(r, 2 * kJ));
          mma_bf16(c[r][2 * kJ + 1], a[r], b[1], b[3], start(r, 2 * kJ + 1));
        } else {
          mma_bf16(c[r][2 * kJ], a[r], b[0], b[2]);
          mma_bf16(c[r][2 * kJ + 1], a[r], b[1], b[3]);
        }
      }
    });
  });
}

// A sum that starts at 0.
__device__ __forceinline__ float4 from_zero(int, int) { return {0, 0, 0, 0}; }

// sums += weights · tile: weights [16 rows, 8·kN] as they come out of multiply_rows, rounded to bf16; tile [8·kN, kD],
// kAfter bytes behind `tile`.
template <int kAfter, int kD, int kN, int kRowTiles>
__device__ __forceinline__ void add_product(float (&sums)[kRowTiles][kD / 8][4],
                                            const float (&weights)[kRowTiles][kN][4], const Operands<kD>& tile) {
  unroll<kN / 2>([&]<int kK>() {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const float(&low)[4] = weights[r][2 * kK];
      const float(&high)[4] = weights[r][2 * kK + 1];
      a[r][0] = pack_bf16(low[0], low[1]), a[r][1] = pack_bf16(low[2], low[3]);
      a[r][2] = pack_bf16(high[0], high[1]), a[r][3] = pack_bf16(high[2], high[3]);
    }
    unroll<kD / 16>([&]<int kColumn>() {
      uint32_t b[4];
      tile.template load_transposed<kK, kColumn, kAfter>(b);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_bf16(sums[r][2 * kColumn], a[r], b[0], b[1]);
        mma_bf16(sums[r][2 * kColumn + 1], a[r], b[2], b[3]);
      }
    });
  });
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
#pragma unroll 1
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

  // Starts copying a step of K and, behind it, V, which lies v_after_k bytes behind.
  template <int kD>
  __device__ __forceinline__ void copy(uint32_t tile, const HeadRows& k, int64_t v_after_k, int step, int D) const {
    const int first = step * kStep, end = first + kStep;
    if constexpr (CopyShare<kD>::kSamePlace) {
      if (end <= seen && D == kD && (first >= prefix_rows || end <= prefix_rows))  // one run of rows
        return copy_whole_rows<kD, kStep, true>(tile, k, row(first), v_after_k);
    }
    CopyShare<kD>::template for_each<kStep>([&](int i, int piece, uint32_t offset) {
      const int key = first + i;
      const bool inside = piece * 8 < D, exists = inside && key < seen;
      const char* from = k.at(row(min(key, seen - 1)), inside ? piece * 16 : 0);
      cp_async_16(tile + offset, from, exists);
      cp_async_16(tile + offset + kStep * kD * 2, from + v_after_k, exists);
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
