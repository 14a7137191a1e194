// What the Hopper kernels of attention share: loading rows of segments, finding tiles inside the window, the order in
// which warpgroups use the tensor cores, storing rows.
//
// A tile in shared memory is made of chunks of 64 columns; a chunk is kRows rows of 128 bytes, swizzled. The swizzle
// depends on bits 7-9 of the address alone, so a box may start at any row of a chunk.
#pragma once
#include <cuda_bf16.h>

#include "mbarrier.cuh"
#include "params/attention_sm90.h"
#include "tma.cuh"
#include "wgmma.cuh"

namespace westwind {

constexpr int kRowBytes = 128;  // of a chunk
constexpr int kWarpgroup = 128;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// n rows of a head from `row` on, to a tile of kRows rows from row `at` on. One thread.
template <int kRows, int kChunks>
__device__ __forceinline__ void load_run(const RowBoxes& boxes, uint32_t tile, int32_t at, int32_t n, int32_t row,
                                         int32_t head, uint32_t barrier) {
  for (int32_t box = 31 - __clz(kRows); n > 0; --box) {
    const int32_t rows = 1 << box;
    if (n < rows) continue;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
      tma_load(tile + chunk * kRows * kRowBytes + at * kRowBytes, &boxes.rows[box], chunk * kBoxColumns, head, row,
               barrier);
    at += rows, row += rows, n -= rows;
  }
}

// The logical keys of a segment: rows prefix_first …, then rows start … end − 1.
struct Keys {
  int32_t prefix_first, prefix_rows, start, end;
  __device__ __forceinline__ int32_t row(int32_t key) const {
    return key < prefix_rows ? prefix_first + key : start + key - prefix_rows;
  }
};

// Logical keys [key, key + kRows) of a head as a tile; rows past the end are 0, whatever lies behind the segment:
// weight 0 times infinity would not be 0. One thread; kRows · kChunks · 128 bytes count at `barrier`.
template <int kRows, int kChunks>
__device__ __forceinline__ void load_keys(const RowBoxes& boxes, const Keys& keys, int32_t T, uint32_t tile,
                                          int32_t key, int32_t head, uint32_t barrier) {
  const int32_t before = min(max(keys.prefix_rows - key, 0), kRows);
  const int32_t own = min(keys.end - keys.start - max(key - keys.prefix_rows, 0), kRows - before);
  load_run<kRows, kChunks>(boxes, tile, 0, before, keys.prefix_first + key, head, barrier);
  load_run<kRows, kChunks>(boxes, tile, before, own, keys.row(key + before), head, barrier);
  load_run<kRows, kChunks>(boxes, tile, before + own, kRows - before - own, T, head, barrier);
}

__device__ __forceinline__ PositionRange merge(PositionRange a, PositionRange b) {
  return {min(a.low, b.low), max(a.high, b.high)};
}

// Positions of rows [row, row + n), or of a few more.
__device__ __forceinline__ PositionRange range_of_rows(const PositionRange* ranges, int32_t row, int32_t n) {
  PositionRange range{INT32_MAX, INT32_MIN};
  if (n <= 0) return range;
  for (int32_t i = row / kPositionRows; i <= (row + n - 1) / kPositionRows; ++i) range = merge(range, ranges[i]);
  return range;
}

// Exactly those of rows [row, row + n); all lanes of a warp get them.
__device__ __forceinline__ PositionRange exact_range(const int32_t* positions, int32_t row, int32_t n) {
  PositionRange range{INT32_MAX, INT32_MIN};
  for (int32_t i = threadIdx.x % 32; i < n; i += 32) range = merge(range, {positions[row + i], positions[row + i]});
  return {__reduce_min_sync(~0u, range.low), __reduce_max_sync(~0u, range.high)};
}

// What a tile of keys needs beside its data.
constexpr int32_t kNoTile = INT32_MAX;
struct KeyTile {
  int32_t first;   // logical key; kNoTile: there are no more
  int32_t masked;  // some query may have some key of it out of its window
};

__device__ __forceinline__ Keys keys_of(const AttentionTile& t) {
  return {t.prefix_first, t.prefix_rows, t.start, t.end};
}

// Logical keys up to the tile's last query.
__device__ __forceinline__ int32_t key_count(const AttentionTile& t) {
  return t.prefix_rows + t.first + t.rows - t.start;
}

// The tiles of kRows logical keys that some query of the tile sees, ascending: emit(first key, masked). All lanes of
// one warp.
template <int kRows, class Emit>
__device__ __forceinline__ void for_key_tiles(const AttentionPlan& plan, const Segments& segments,
                                              const AttentionTile& t, const Emit& emit) {
  const Keys keys = keys_of(t);
  const int32_t count = key_count(t);
  const bool window = segments.window > 0;
  const PositionRange queries = window ? exact_range(segments.positions, t.first, t.rows) : PositionRange{0, 0};
  for (int32_t base = 0; base < count; base += 32 * kRows) {
    const int32_t mine = base + static_cast<int32_t>(threadIdx.x % 32) * kRows;
    bool seen = mine < count, masked = false;
    if (window && seen) {
      const int32_t own = max(mine, keys.prefix_rows), end = min(mine + kRows, count);
      const PositionRange range =
          merge(range_of_rows(plan.ranges, keys.prefix_first + mine, min(end, keys.prefix_rows) - mine),
                range_of_rows(plan.ranges, keys.row(own), end - own));
      seen = queries.low - range.high < segments.window;
      masked = queries.high - range.low >= segments.window;
    }
    const uint32_t masks = __ballot_sync(~0u, masked);
    for (uint32_t left = __ballot_sync(~0u, seen); left != 0; left &= left - 1) {
      const int32_t i = __ffs(left) - 1;
      emit(base + i * kRows, (masks >> i & 1) != 0);
    }
  }
}

// The thread's first row of the 64 of its warpgroup; the other is 8 further.
__device__ __forceinline__ int32_t first_row() { return threadIdx.x % kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4; }

// Logical numbers of a warpgroup's first and last query; −1: it has none.
__device__ __forceinline__ int32_t first_query(const AttentionTile* t, int32_t group) {
  return t->prefix_rows + t->first - t->start + 64 * group;
}
__device__ __forceinline__ int32_t last_query(const AttentionTile* t, int32_t group) {
  return t->rows <= 64 * group ? -1 : first_query(t, group) + min(t->rows - 64 * group, 64) - 1;
}

// Scores [64 queries, N keys] that the query does not see become −∞. The tile is read again here: registers are scarce
// in the loops that this is called from.
template <int N>
__device__ __forceinline__ void mask_keys(float (&s)[N / 2], const Segments& segments, const AttentionTile* t,
                                          int32_t group, const KeyTile& tile) {
  const int32_t key = tile.first + 2 * static_cast<int32_t>(threadIdx.x % 4);
  const int32_t seen = first_query(t, group) + first_row() - key;
#pragma unroll
  for (int i = 0; i < N / 2; ++i)
    if (i / 4 * 8 + i % 2 > seen + i / 2 % 2 * 8) s[i] = -INFINITY;
  if (tile.masked == 0) return;
  const Keys keys = keys_of(*t);
  const int32_t row = t->first + 64 * group + first_row();
  const int32_t oldest[2] = {segments.positions[min(row, keys.end - 1)] - segments.window + 1,
                             segments.positions[min(row + 8, keys.end - 1)] - segments.window + 1};
#pragma unroll
  for (int i = 0; i < N / 2; i += 4)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int32_t position = segments.positions[min(keys.row(key + i / 4 * 8 + e), keys.end - 1)];
      if (position < oldest[0]) s[i + e] = -INFINITY;
      if (position < oldest[1]) s[i + 2 + e] = -INFINITY;
    }
}

__device__ __forceinline__ void arrive_threads(uint32_t barrier, uint32_t threads) {
  asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Warpgroups issue their products in turns, so that one's softmax runs while the other's products do (FlashAttention-3,
// arXiv:2407.08608, "ping-pong"). Named barrier 1 + w lets warpgroup w of kGroups go.
template <int kGroups>
struct Turns {
  uint32_t own;
  // In the beginning it is the turn of warpgroup 0.
  __device__ __forceinline__ explicit Turns(uint32_t group) : own(group) {
    if (own == kGroups - 1) pass();
  }
  __device__ __forceinline__ void await() const { sync_threads(1 + own, 2 * kWarpgroup); }
  __device__ __forceinline__ void pass() const {
    arrive_threads(1 + (own == kGroups - 1 ? 0 : own + 1), 2 * kWarpgroup);
  }
  // No barrier is left half full.
  __device__ __forceinline__ void finish() const {
    if (own == 0) await();
  }
};

// All threads of a warpgroup; barriers 8 ….
__device__ __forceinline__ void sync_warpgroup(uint32_t group) { sync_threads(8 + group, kWarpgroup); }

__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

// Writes the warp's 16 rows of an accumulator [64, kColumns], row r times factor[r / 8 of the warp's 16], as bf16 to
// global memory: row r of the warpgroup, if below `rows`, to out + r · stride, columns below D. Goes through `tile`, a
// tile of 64 rows that nobody reads any more, so that stores are of 16 bytes side by side. D is a multiple of 8.
template <int kColumns>
__device__ __forceinline__ void store_rows(const float (&x)[kColumns / 2], const float (&factor)[2], uint32_t tile,
                                           int32_t rows, int32_t D, void* out, int64_t stride) {
  const int32_t lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 % 4 * 16;
  const uint32_t row = warp_row + lane % 16;
#pragma unroll
  for (int c = 0; c < kColumns / 16; ++c) {
    const uint32_t piece = 2 * (c % 4) + lane / 16;  // of 16 bytes
    store_matrices(tile + c / 4 * 64 * kRowBytes + row * kRowBytes + ((piece ^ row % 8) << 4),
                   pack_bf16(x[8 * c] * factor[0], x[8 * c + 1] * factor[0]),
                   pack_bf16(x[8 * c + 2] * factor[1], x[8 * c + 3] * factor[1]),
                   pack_bf16(x[8 * c + 4] * factor[0], x[8 * c + 5] * factor[0]),
                   pack_bf16(x[8 * c + 6] * factor[1], x[8 * c + 7] * factor[1]));
  }
  __syncwarp();
  constexpr int kPieces = kColumns / 8;
#pragma unroll 4
  for (int i = lane; i < 16 * kPieces; i += 32) {
    const int32_t r = warp_row + i / kPieces, piece = i % kPieces;
    if (r >= rows || 8 * piece >= D) continue;
    const uint4 v = load_shared16(tile + piece / 8 * 64 * kRowBytes + r * kRowBytes + ((piece % 8 ^ r % 8) << 4));
    *reinterpret_cast<uint4*>(static_cast<char*>(out) + 2 * (r * stride + 8 * piece)) = v;
  }
}

}  // namespace westwind
