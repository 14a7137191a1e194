// linear_logps: one block per row of a chunk of logits. Forward folds the row into (max, sum, weighted sum) in one pass
// (online softmax, arXiv:1805.02867); the gradient is a second pass, from the row's end, which L2 still holds: the rows
// of all blocks that run at once are some 34 MB at V = 32000. Backward alone is that second pass. f32 throughout.
// Limited by HBM: per logit 4 bytes read, and 2 or 4 written for the gradient. Contract: ops/linear_logps.h
#include <float.h>

#include "common/fault.cuh"
#include "common/vec.cuh"
#include "params/linear_logps.h"

using namespace westwind;

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kWide = 4;    // f32 in 16 bytes
constexpr int kFlight = 4;  // loads of a thread on the way at once
constexpr int64_t kStep = kThreads * kWide * kFlight;
constexpr float kNothing = -1e30f;  // past the row's end: weight 0, and finite, so that 0 times it is 0

struct Part {
  float max;
  float sum;       // Σ e^(x − max)
  float weighted;  // Σ e^(x − max) · (x − max)

  __device__ __forceinline__ void raise(float to) {
    const float d = max - to, factor = __expf(d);
    weighted = factor * (weighted + d * sum);
    sum *= factor;
    max = to;
  }
};

__device__ __forceinline__ Part merge(Part a, Part b) {
  const float top = fmaxf(a.max, b.max);
  a.raise(top);
  b.raise(top);
  return {top, a.sum + b.sum, a.weighted + b.weighted};
}

// Logits v .. v + 3 of a row.
__device__ __forceinline__ void load_logits(float (&x)[kWide], const float* row, int64_t v, int64_t V) {
  if (v >= V) {
#pragma unroll
    for (float& e : x) e = kNothing;
    return;
  }
  const Vec<float> loaded = load_vec(row + v);  // ld is a multiple of 4: what lies past V is ours
#pragma unroll
  for (int i = 0; i < kWide; ++i) x[i] = v + i < V ? loaded.v[i] : kNothing;
}

__device__ __forceinline__ Part block_merge(Part part, Part* parts) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    part = merge(part, {__shfl_xor_sync(~0u, part.max, lanes), __shfl_xor_sync(~0u, part.sum, lanes),
                        __shfl_xor_sync(~0u, part.weighted, lanes)});
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = part;
  __syncthreads();
  part = parts[0];
#pragma unroll 4
  for (int w = 1; w < kWarps; ++w) part = merge(part, parts[w]);
  return part;
}

// Writes logps, lse, entropy and hit of row n; returns its lse.
__device__ __forceinline__ float finish(const LinearLogpsRows& p, int64_t n, const float* row) {
  __shared__ Part parts[kWarps];
  const int64_t target = p.target[n];
  const float chosen = row[target];
  Part part{-FLT_MAX, 0, 0};
  bool beaten = false;  // by a larger logit, or an equal one before it
  for (int64_t v0 = threadIdx.x * int64_t{kWide}; v0 < p.V; v0 += kStep) {
    float x[kFlight][kWide];
#pragma unroll
    for (int f = 0; f < kFlight; ++f) load_logits(x[f], row, v0 + f * kThreads * kWide, p.V);
    float top = part.max;
#pragma unroll
    for (int f = 0; f < kFlight; ++f)
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const int64_t v = v0 + f * kThreads * kWide + i;
        beaten |= x[f][i] > chosen || (x[f][i] == chosen && v < target);
        top = fmaxf(top, x[f][i]);
      }
    part.raise(top);
#pragma unroll
    for (int f = 0; f < kFlight; ++f)
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float d = x[f][i] - top, e = __expf(d);
        part.sum += e;
        part.weighted += e * d;
      }
  }
  beaten = __syncthreads_or(beaten);
  part = block_merge(part, parts);
  const float log_sum = logf(part.sum), lse = part.max + log_sum;
  if (threadIdx.x == 0) {
    p.lse[n] = lse;
    p.logps[n] = chosen - part.max - log_sum;
    if (p.entropy != nullptr) p.entropy[n] = log_sum - part.weighted / part.sum;
    if (p.hit != nullptr) p.hit[n] = beaten ? 0.f : 1.f;
  }
  return lse;
}

// As one store: left to itself the compiler splits some into four.
__device__ __forceinline__ void store_gradient(float* p, const float (&x)[kWide]) {
  __stcg(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
}
__device__ __forceinline__ void store_gradient(bf16* p, const float (&x)[kWide]) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x[0], x[1]), high = __floats2bfloat162_rn(x[2], x[3]);
  __stcg(reinterpret_cast<uint2*>(p),
         make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)));
}

// dlogp · (onehot − softmax); all 0 where dlogp is 0. What is written past V, up to a multiple of 4, nobody reads.
template <class T>
__device__ __forceinline__ void gradient(const LinearLogpsRows& p, const float* row, T* out, int64_t target, float lse,
                                         float dlogp) {
  if (dlogp == 0) {
    const float none[kWide] = {};
    for (int64_t v = threadIdx.x * int64_t{kWide}; v < p.V; v += kThreads * kWide) store_gradient(out + v, none);
    return;
  }
  for (int64_t v0 = (p.V - 1) / kStep * kStep + threadIdx.x * int64_t{kWide}; v0 >= 0; v0 -= kStep) {
    float x[kFlight][kWide];
#pragma unroll
    for (int f = 0; f < kFlight; ++f) load_logits(x[f], row, v0 + f * kThreads * kWide, p.V);
#pragma unroll
    for (int f = 0; f < kFlight; ++f) {
      const int64_t v = v0 + f * kThreads * kWide;
      if (v >= p.V) continue;
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float weight = __expf(x[f][i] - lse);
        x[f][i] = v + i == target ? dlogp * (1 - weight) : -dlogp * weight;
      }
      store_gradient(out + v, x[f]);
    }
  }
}

// A wrong target is told at the next wait; until then a row has no results, and its gradient is 0.
template <bool kForward, class T>
__device__ __forceinline__ void backward_row(const LinearLogpsRows& p) {
  const int64_t n = blockIdx.x;
  float* row = p.logits + n * p.ld;
  const bool good = !faulty(p.fault);
  float lse = 0;
  if (good) {
    if constexpr (kForward)
      lse = finish(p, n, row);
    else
      lse = p.lse[n];
  }
  gradient(p, row, static_cast<T*>(p.dlogits) + n * p.ld, p.target[n], lse, good ? p.dlogps[n] : 0.f);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) linear_logps_fwd(const __grid_constant__ LinearLogpsRows p) {
  if (!faulty(p.fault)) finish(p, blockIdx.x, p.logits + blockIdx.x * p.ld);
}

#define KERNEL(name, ...)                                              \
  extern "C" __global__ void __launch_bounds__(kThreads)               \
      linear_logps_##name(const __grid_constant__ LinearLogpsRows p) { \
    backward_row<__VA_ARGS__>(p);                                      \
  }
KERNEL(fwd_bwd_f32, true, float)
KERNEL(fwd_bwd_bf16, true, bf16)
KERNEL(bwd_f32, false, float)
KERNEL(bwd_bf16, false, bf16)
