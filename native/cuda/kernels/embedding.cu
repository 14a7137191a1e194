// embedding: 64 threads copy a row, 16 bytes each, several on their way at once. Reads and writes each byte once.
//
// embedding_backward, scatter_add_rows: the row numbers come sorted (kernels/sort_rows.cu). A block takes a row of the
// result and 512 columns, and adds the rows that go there in ascending order, eight of them on their way at once.
// Limited by HBM: each row of the input is read once, each row of the result that changes is read (embedding_backward)
// and written once. Contract: ops/embedding.h
#include "common/fault.cuh"
#include "common/row.cuh"
#include "params/embedding.h"

using namespace westwind;

namespace {

constexpr int kCopyThreads = 256, kCopyTeam = 64;
constexpr int kAddThreads = 128;  // four columns each
constexpr int kAhead = 8;         // rows

// A row by a team, four loads before their stores.
template <class Unit>
__device__ __forceinline__ void copy_row(const Unit* from, Unit* to, int64_t n) {
  for (int64_t begin = threadIdx.x % kCopyTeam; begin < n; begin += 4 * kCopyTeam) {
    Unit units[4];
#pragma unroll
    for (int u = 0; u < 4; ++u)
      if (begin + u * kCopyTeam < n) units[u] = from[begin + u * kCopyTeam];
#pragma unroll
    for (int u = 0; u < 4; ++u)
      if (begin + u * kCopyTeam < n) to[begin + u * kCopyTeam] = units[u];
  }
}

template <class T>
__device__ __forceinline__ void gather(const EmbeddingLaunch& launch) {
  if (faulty(launch.fault)) return;
  const EmbeddingParams& p = launch.p;
  const int64_t t = blockIdx.x * int64_t{kCopyThreads / kCopyTeam} + threadIdx.x / kCopyTeam;
  if (t >= p.T) return;
  const T* from = static_cast<const T*>(p.table) + p.ids[t] * p.C;
  T* to = static_cast<T*>(p.out) + t * p.C;
  if (whole_groups<kVec<T>>(static_cast<const T*>(p.table), p.C) && aligned16(p.out)) {
    copy_row(reinterpret_cast<const uint4*>(from), reinterpret_cast<uint4*>(to), p.C / kVec<T>);
  } else {
    copy_row(from, to, p.C);
  }
}

__device__ __forceinline__ int64_t row_of(RowKey key) { return key >> 32; }

// total + the rows of x at the keys of `row`, which begin at k. Called by whole warps; threads that have no column read
// nothing.
template <class T>
__device__ __forceinline__ Four add_rows(Four total, const T* x, const RowKey* keys, int64_t n, int64_t k, int64_t row,
                                         int64_t g, int64_t C, bool whole) {
  const int lane = threadIdx.x % 32;
  const bool has_columns = g * 4 < C;
  for (int count = kAhead; count == kAhead; k += kAhead) {
    const RowKey key = lane < kAhead && k + lane < n ? keys[k + lane] : -1;
    count = __popc(__ballot_sync(0xffffffffu, row_of(key) == row));
    Four ahead[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (u >= count) break;
      const int64_t place = __shfl_sync(0xffffffffu, static_cast<uint32_t>(key), u);
      if (has_columns) ahead[u] = load_four(x + place * C, g, C, whole);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (u < count && has_columns) total = plus(total, ahead[u]);
  }
  return total;
}

template <class T>
__device__ __forceinline__ void add_to_table(const EmbeddingBackwardLaunch& launch) {
  const EmbeddingBackwardParams& p = launch.p;
  const bool stop = faulty(launch.fault);
  const int64_t k = blockIdx.x, row = row_of(launch.keys[k]);
  if (stop || (k > 0 && row_of(launch.keys[k - 1]) == row)) return;  // or an earlier block has this row
  const int64_t C = p.C, g = blockIdx.y * int64_t{kAddThreads} + threadIdx.x;
  const T* dout = static_cast<const T*>(p.dout);
  const bool whole_dout = whole_groups<4>(dout, C), whole_table = whole_groups<4>(p.dtable, C);
  float* to = p.dtable + row * C;
  const bool has_columns = g * 4 < C;
  const Four before = has_columns ? load_four(to, g, C, whole_table) : Four{};
  const Four total = add_rows(before, dout, launch.keys, p.T, k, row, g, C, whole_dout);
  if (has_columns) store_four(to, g, C, whole_table, total);
}

template <class T>
__device__ __forceinline__ void scatter(const ScatterAddRowsLaunch& launch) {
  if (faulty(launch.fault)) return;
  const ScatterAddRowsParams& p = launch.p;
  const int64_t C = p.C, row = blockIdx.x, g = blockIdx.y * int64_t{kAddThreads} + threadIdx.x;
  const T* x = static_cast<const T*>(p.x);
  T* out = static_cast<T*>(p.out);
  const Four total = add_rows(Four{}, x, launch.keys, p.N, launch.starts[row], row, g, C, whole_groups<4>(x, C));
  if (g * 4 < C) store_four(out + row * C, g, C, whole_groups<4>(out, C), total);
}

}  // namespace

#define EMBEDDING(name, T)                                                           \
  extern "C" __global__ void __launch_bounds__(kCopyThreads)                         \
      embedding_##name(const __grid_constant__ EmbeddingLaunch p) {                  \
    gather<T>(p);                                                                    \
  }                                                                                  \
  extern "C" __global__ void __launch_bounds__(kAddThreads)                          \
      embedding_backward_##name(const __grid_constant__ EmbeddingBackwardLaunch p) { \
    add_to_table<T>(p);                                                              \
  }                                                                                  \
  extern "C" __global__ void __launch_bounds__(kAddThreads)                          \
      scatter_add_rows_##name(const __grid_constant__ ScatterAddRowsLaunch p) {      \
    scatter<T>(p);                                                                   \
  }
EMBEDDING(f32, float)
EMBEDDING(bf16, bf16)
#undef EMBEDDING
