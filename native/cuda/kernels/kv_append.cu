// kv_append: 16 bytes a thread where everything lies on such boundaries, else element by element. Limited by HBM.
//
// Rows may name one place twice, and the later must stay: a block looks at all rows behind its own first and leaves out
// those of its rows that a later one replaces. That is T² / 16 comparisons of 8 bytes from L2, for T = 4096 some 8 MB.
// Contract: ops/decode.h
#include "common/fault.cuh"
#include "common/vec.cuh"
#include "params/decode.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;
constexpr int kRows = 8;  // of a block

// Rows of `row` units behind each other in qkv and in both caches.
template <class Unit>
__device__ __forceinline__ void copy_rows(const Unit* from, int64_t stride, Unit* k, Unit* v, int64_t row, int rows,
                                          const int64_t* place) {
  for (int r = 0; r < rows; ++r) {
    if (place[r] < 0) continue;
    for (int64_t i = threadIdx.x; i < 2 * row; i += kThreads) {
      Unit* to = i < row ? k + place[r] * row + i : v + place[r] * row + i - row;
      *to = from[r * stride + i];
    }
  }
}

template <class T>
__device__ __forceinline__ void append(const KvAppendLaunch& w) {
  __shared__ int64_t place[kRows];  // slot · length + position, −1: not to be written
  const KvAppendParams& p = w.p;
  const int64_t first = blockIdx.x * int64_t{kRows};
  const int rows = static_cast<int>(p.T - first < kRows ? p.T - first : kRows);
  if (threadIdx.x < kRows) {
    place[threadIdx.x] = -1;
    if (threadIdx.x < rows) {
      const int64_t t = first + threadIdx.x;
      const int32_t slot = p.slot[t], position = p.position[t];
      if (slot < 0 || slot >= p.slots)
        report(w.fault, w.slot_fault, static_cast<uint64_t>(t), slot);
      else if (position < 0 || position >= p.length)
        report(w.fault, w.position_fault, static_cast<uint64_t>(t), position);
      else
        place[threadIdx.x] = slot * p.length + position;
    }
  }
  __syncthreads();
  int64_t mine[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) mine[r] = place[r];
  uint32_t replaced = 0;
  for (int64_t t = first + 1 + threadIdx.x; t < p.T; t += kThreads) {
    const int64_t other = p.slot[t] * p.length + p.position[t];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (other == mine[r] && t > first + r) replaced |= 1u << r;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (__syncthreads_or(replaced >> r & 1) && threadIdx.x == 0) place[r] = -1;
  __syncthreads();

  constexpr int kUnit = kVec<T>;
  const int64_t row = int64_t{p.Hkv} * p.D, stride = (int64_t{p.Hq} + 2 * p.Hkv) * p.D;
  const T* from = static_cast<const T*>(p.qkv) + first * stride + int64_t{p.Hq} * p.D;
  const bool vector =
      row % kUnit == 0 && stride % kUnit == 0 && aligned16(from) && aligned16(p.k_cache) && aligned16(p.v_cache);
  if (vector)
    copy_rows(reinterpret_cast<const uint4*>(from), stride / kUnit, static_cast<uint4*>(p.k_cache),
              static_cast<uint4*>(p.v_cache), row / kUnit, rows, place);
  else
    copy_rows(from, stride, static_cast<T*>(p.k_cache), static_cast<T*>(p.v_cache), row, rows, place);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) kv_append_f32(const __grid_constant__ KvAppendLaunch w) {
  append<float>(w);
}
extern "C" __global__ void __launch_bounds__(kThreads) kv_append_bf16(const __grid_constant__ KvAppendLaunch w) {
  append<bf16>(w);
}
