// Sums over a warp or a block in a fixed tree; every thread gets the same bits.
#pragma once
#include <stdint.h>

namespace westwind {

// merge(a, b) over the lanes of a full warp; merge is commutative.
template <class T, class Merge>
__device__ __forceinline__ T warp_merge(T x, const Merge& merge) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x = merge(x, __shfl_xor_sync(0xffffffffu, x, distance));
  return x;
}

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  return warp_merge(x, [](T a, T b) { return a + b; });
}

// Over the block of kThreads; `partials`: one per warp, in shared memory, free again at the caller's next barrier.
template <int kThreads, class T, class Merge>
__device__ __forceinline__ T block_merge(T x, T* partials, const Merge& merge) {
  constexpr int kWarps = kThreads / 32;
  x = warp_merge(x, merge);
  if constexpr (kWarps == 1) return x;
  if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = x;
  __syncthreads();
  x = partials[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) x = merge(x, partials[i]);
  return x;
}

template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T x, T* partials) {
  return block_merge<kThreads>(x, partials, [](T a, T b) { return a + b; });
}

}  // namespace westwind
