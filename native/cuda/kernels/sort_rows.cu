// Groups row numbers without atomics: keys (row, place) are sorted in tiles by a bitonic network in shared memory, and
// runs of keys merged, each key finding its place by binary search in the other run. Limited by latency: a pass over
// 64k keys is a few microseconds, and there are log2(n / 2048) of them. Contract: params/embedding.h
#include "params/embedding.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;
constexpr int64_t kLast = INT64_MAX;  // fills up a tile

// How many of the n ascending keys are below `key`.
__device__ __forceinline__ int64_t count_below(const RowKey* keys, int64_t n, RowKey key) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kSortTile / 2) sort_rows(const __grid_constant__ SortRowsLaunch p) {
  __shared__ RowKey keys[kSortTile];
  const int64_t begin = blockIdx.x * int64_t{kSortTile};
  const int threads = static_cast<int>(blockDim.x);  // a power of two, at least half of the keys
  const int n = p.n - begin < kSortTile ? static_cast<int>(p.n - begin) : kSortTile;
  for (int i = threadIdx.x; i < 2 * threads; i += threads)
    keys[i] = i < n ? static_cast<RowKey>(p.rows[begin + i]) << 32 | (begin + i) : kLast;
  for (int size = 2; size < 2 * n; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      if (size == 2 || stride >= 32) {
        __syncthreads();
      } else {
        __syncwarp();  // this pass and the one before stay in the 64 keys of a warp
      }
      const int low = 2 * threadIdx.x - (threadIdx.x & (stride - 1));
      const RowKey a = keys[low], b = keys[low + stride];
      if ((a > b) == ((low & size) == 0)) keys[low] = b, keys[low + stride] = a;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += threads) p.keys[begin + i] = keys[i];
}

extern "C" __global__ void __launch_bounds__(kThreads) merge_rows(const __grid_constant__ MergeRowsLaunch p) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= p.n) return;
  const RowKey key = p.from[i];
  const int64_t pair = i / (2 * p.run) * (2 * p.run);
  const int64_t middle = pair + p.run < p.n ? pair + p.run : p.n, end = middle + p.run < p.n ? middle + p.run : p.n;
  const bool left = i < middle;
  const int64_t other =
      left ? count_below(p.from + middle, end - middle, key) : count_below(p.from + pair, middle - pair, key);
  p.to[(left ? i : i - p.run) + other] = key;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    scatter_add_rows_starts(const __grid_constant__ ScatterAddRowsLaunch p) {
  const int64_t r = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (r < p.p.R) p.starts[r] = static_cast<int32_t>(count_below(p.keys, p.p.N, r << 32));
}
