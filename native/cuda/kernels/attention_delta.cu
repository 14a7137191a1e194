// Each row's lse and delta[h, t] = Σ_d dout[t, h, d] · out[t, h, d] for attention_backward, in f32 and as its kernels
// take them. Limited by HBM: both tensors are read once, 16 bytes a lane where rows are on such boundaries.
#include "common/vec.cuh"
#include "params/attention.h"

using namespace westwind;

namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kThreads = 256;
constexpr int kRows = 32;                 // tokens of one head for a block
constexpr int kLanes = kThreads / kRows;  // of one row
static_assert(kRows * kLanes == kThreads && 32 % kLanes == 0, "the lanes of a row are in one warp");

template <class T>
__device__ void delta(const AttentionBackwardArgs& args) {
  __shared__ float sums[kRows];
  const AttentionBackwardParams& p = args.op;
  if (args.plan.counts[0] == 0) return;
  const int head = static_cast<int>(blockIdx.x % p.Hq), D = p.D;
  const int64_t first = blockIdx.x / p.Hq * int64_t{kRows};
  const int row = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const T* dout = static_cast<const T*>(p.dout) + ((first + row) * p.Hq + head) * D;
  const T* out = static_cast<const T*>(p.out) + ((first + row) * p.Hq + head) * D;
  float sum = 0;
  if (first + row < p.T) {
    if (D % kVec<T> == 0 && aligned16(dout) && aligned16(out)) {
      for (int d = lane * kVec<T>; d < D; d += kLanes * kVec<T>) {
        const Vec<T> a = load_vec(dout + d), b = load_vec(out + d);
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) sum += a.v[i] * b.v[i];
      }
    } else {
      for (int d = lane; d < D; d += kLanes) sum += to_f32(dout[d]) * to_f32(out[d]);
    }
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (lane == 0) sums[row] = sum;
  __syncthreads();
  if (threadIdx.x < kRows && first + threadIdx.x < p.T)
    args.rows[head * p.T + first + threadIdx.x] = {-kLog2E * p.lse[head * p.T + first + threadIdx.x],
                                                   -sums[threadIdx.x]};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_bwd_delta_f32(const __grid_constant__ AttentionBackwardArgs args) {
  delta<float>(args);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    attention_bwd_delta_bf16(const __grid_constant__ AttentionBackwardArgs args) {
  delta<bf16>(args);
}
