// token_logps: a block per row; each thread folds its share into a running maximum and sum, so that the logits are read
// once (online softmax, arXiv:1805.02867). Backward: 8 or 4 logits a thread and load, and no reading at all of rows
// whose gradient is 0. Limited by HBM: V elements of the dtype per token forward, 2·V backward. f32 after the load.
// Contract: ops/token_logps.h
#include <float.h>

#include "common/fault.cuh"
#include "common/reduce.cuh"
#include "common/row.cuh"
#include "params/token_logps.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;
constexpr int kStretch = 4 * kThreads;  // groups of a row that a block of backward takes
constexpr float kLog2E = 1.44269504088896341f;

// e^x where x's distance from 0 makes little of its error: a few units in the last place at −10, and what is further
// away adds nothing.
__device__ __forceinline__ float exp_near(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x * kLog2E));
  return out;
}

// e^x to about 1 ulp for x in [−87, 88]; 0 below, +inf above, NaN stays NaN. Cody–Waite reduction, degree-6 polynomial.
__device__ __forceinline__ float exp_exact(float x) {
  const float n = rintf(fminf(fmaxf(x, -88.f), 89.f) * kLog2E);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p * r, r, r) + 1.f;
  // In two steps, so that 2^128 is reached without an invalid exponent.
  const int e = static_cast<int>(n), half = e >> 1;
  const float y = p * __int_as_float((half + 127) << 23) * __int_as_float((e - half + 127) << 23);
  return x < -87.3f ? 0.f : x > 88.73f ? INFINITY : y;
}

template <class T>
__device__ __forceinline__ float exp_for(float x) {
  if constexpr (sizeof(T) == 4) return exp_exact(x);
  return exp_near(x);
}

struct MaxSum {
  float max, sum;  // Σ e^(x − max)
};

template <class T>
__device__ __forceinline__ MaxSum fold(MaxSum acc, const Vec<T>& x) {
  float max = x.v[0];
#pragma unroll
  for (int i = 1; i < kVec<T>; ++i) max = fmaxf(max, x.v[i]);
  if (max > acc.max) acc = {max, acc.sum * exp_near(acc.max - max)};
  float sum[kVec<T>];
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) sum[i] = exp_near(x.v[i] - acc.max);
#pragma unroll
  for (int half = kVec<T> / 2; half > 0; half /= 2)
#pragma unroll
    for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
  acc.sum += sum[0];
  return acc;
}

template <class T, int kTeam>
__device__ __forceinline__ void forward(const TokenLogpsLaunch& launch) {
  __shared__ float maxima[kTeam / 32], sums[kTeam / 32];
  if (faulty(launch.fault)) return;
  const TokenLogpsParams& p = launch.p;
  const int64_t t = blockIdx.x, V = p.V, groups = (V + kVec<T> - 1) / kVec<T>;
  const T* row = static_cast<const T*>(p.logits) + t * V;
  const bool whole = whole_groups<kVec<T>>(static_cast<const T*>(p.logits), V);

  MaxSum acc{-FLT_MAX, 0.f};  // not −inf: a thread without logits would give NaN
#pragma unroll 4
  for (int64_t g = threadIdx.x; g < groups; g += kTeam) acc = fold<T>(acc, load_group(row, g, V, whole, -INFINITY));
  const float max = block_merge<kTeam>(acc.max, maxima, [](float a, float b) { return fmaxf(a, b); });
  const float sum = block_sum<kTeam>(acc.sum * exp_near(acc.max - max), sums);

  if (threadIdx.x != 0) return;
  const int target = p.target[t];
  const float log_sum = logf(sum);
  p.lse[t] = max + log_sum;
  p.out[t] = target < 0 ? 0.f : to_f32(row[target]) - max - log_sum;
}

template <class T>
__device__ __forceinline__ void backward(const TokenLogpsBackwardLaunch& launch) {
  if (faulty(launch.fault)) return;
  const TokenLogpsBackwardParams& p = launch.p;
  const int64_t t = blockIdx.x, V = p.V, groups = (V + kVec<T> - 1) / kVec<T>;
  const T* row = static_cast<const T*>(p.logits) + t * V;
  T* out = static_cast<T*>(p.dlogits) + t * V;
  const bool whole = whole_groups<kVec<T>>(static_cast<const T*>(p.logits), V) && aligned16(p.dlogits);
  const int target = p.target[t];
  const float lse = p.lse[t], dlogp = target < 0 ? 0.f : p.dlogps[t];
#pragma unroll
  for (int u = 0; u < kStretch / kThreads; ++u) {
    const int64_t g = blockIdx.y * int64_t{kStretch} + u * static_cast<int>(blockDim.x) + threadIdx.x;
    if (g >= groups) return;
    Vec<T> x{};
    if (dlogp != 0.f) {
      x = load_group(row, g, V, whole);
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        const float p_v = exp_for<T>(x.v[i] - lse);
        x.v[i] = g * kVec<T> + i == target ? dlogp * (1.f - p_v) : -dlogp * p_v;
      }
    }
    store_group(out, g, V, whole, x);
  }
}

}  // namespace

#define TOKEN_LOGPS(name, T)                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads)                                \
      token_logps_##name(const __grid_constant__ TokenLogpsLaunch p) {                  \
    forward<T, kThreads>(p);                                                            \
  }                                                                                     \
  extern "C" __global__ void __launch_bounds__(32)                                      \
      token_logps_##name##_warp(const __grid_constant__ TokenLogpsLaunch p) {           \
    forward<T, 32>(p);                                                                  \
  }                                                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads)                                \
      token_logps_backward_##name(const __grid_constant__ TokenLogpsBackwardLaunch p) { \
    backward<T>(p);                                                                     \
  }
TOKEN_LOGPS(f32, float)
TOKEN_LOGPS(bf16, bf16)
#undef TOKEN_LOGPS
