// kv_gather: a block per row, 16 bytes a thread where everything lies on such boundaries, else element by element.
// Limited by HBM. A row whose place is wrong is not written. Contract: ops/decode.h
#include "common/fault.cuh"
#include "common/vec.cuh"
#include "params/decode.h"

using namespace westwind;

namespace {

constexpr int kThreads = 128;

// `row` units of k, then as many of v.
template <class Unit>
__device__ __forceinline__ void copy_row(const Unit* k, const Unit* v, Unit* to, int64_t row) {
  for (int64_t i = threadIdx.x; i < 2 * row; i += kThreads) to[i] = i < row ? k[i] : v[i - row];
}

template <class T>
__device__ __forceinline__ void gather(const KvGatherLaunch& w) {
  const KvGatherParams& p = w.p;
  const int64_t t = blockIdx.x;
  const int32_t slot = p.slot[t], position = p.position[t];
  const bool bad_slot = slot < 0 || slot >= p.slots;
  if (bad_slot || position < 0 || position >= p.length) {
    if (threadIdx.x == 0)
      report(w.fault, bad_slot ? w.slot_fault : w.position_fault, static_cast<uint64_t>(t), bad_slot ? slot : position);
    return;
  }
  constexpr int kUnit = kVec<T>;
  const int64_t row = int64_t{p.Hkv} * p.D, stride = (int64_t{p.Hq} + 2 * p.Hkv) * p.D;
  const int64_t at = (slot * p.length + position) * row;
  const T* k = static_cast<const T*>(p.k_cache) + at;
  const T* v = static_cast<const T*>(p.v_cache) + at;
  T* to = static_cast<T*>(p.qkv) + t * stride + int64_t{p.Hq} * p.D;
  if (row % kUnit == 0 && aligned16(to) && aligned16(k) && aligned16(v))
    copy_row(reinterpret_cast<const uint4*>(k), reinterpret_cast<const uint4*>(v), reinterpret_cast<uint4*>(to),
             row / kUnit);
  else
    copy_row(k, v, to, row);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) kv_gather_f32(const __grid_constant__ KvGatherLaunch w) {
  gather<float>(w);
}
extern "C" __global__ void __launch_bounds__(kThreads) kv_gather_bf16(const __grid_constant__ KvGatherLaunch w) {
  gather<bf16>(w);
}
