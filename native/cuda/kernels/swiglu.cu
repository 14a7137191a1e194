// swiglu: 16 bytes of gate, of up and (backward) of dout by a thread, one pass. Limited by HBM: 3 elements of the dtype
// per output forward, 5 backward; the exponential and the reciprocal cost less than that. f32 after the load.
// Contract: ops/swiglu.h
#include "common/row.cuh"
#include "ops/swiglu.h"

using namespace westwind;

namespace {

constexpr int kMostThreads = 256;

struct Sigmoid {
  float of, rest;  // σ(z) and 1 − σ(z)
};

// With e = exp(−|z|) neither loses digits or overflows.
__device__ __forceinline__ Sigmoid sigmoid(float z) {
  const float e = expf(-fabsf(z));
  const float large = __fdividef(1.f, e + 1.f), small = e * large;
  return z < 0.f ? Sigmoid{small, large} : Sigmoid{large, small};
}

// z · σ(z), from the same e.
__device__ __forceinline__ float silu(float z) {
  const float e = expf(-fabsf(z));
  return __fdividef(z < 0.f ? z * e : z, e + 1.f);
}

// Blocks: x is the row, y a stretch of its groups.
__device__ __forceinline__ int64_t own_group() { return blockIdx.y * int64_t{blockDim.x} + threadIdx.x; }

template <class T>
__device__ __forceinline__ void forward(const SwigluParams& p) {
  const int64_t F = p.F, g = own_group();
  if (g * kVec<T> >= F) return;
  const T* gate = static_cast<const T*>(p.gate_up) + blockIdx.x * 2 * F;
  T* out = static_cast<T*>(p.out) + blockIdx.x * F;
  const bool whole = whole_groups<kVec<T>>(static_cast<const T*>(p.gate_up), F) && aligned16(p.out);
  const Vec<T> z = load_group(gate, g, F, whole), up = load_group(gate + F, g, F, whole);
  Vec<T> y;
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) y.v[i] = silu(z.v[i]) * up.v[i];
  store_group(out, g, F, whole, y);
}

template <class T>
__device__ __forceinline__ void backward(const SwigluBackwardParams& p) {
  const int64_t F = p.F, g = own_group();
  if (g * kVec<T> >= F) return;
  const T* gate = static_cast<const T*>(p.gate_up) + blockIdx.x * 2 * F;
  const T* dout = static_cast<const T*>(p.dout) + blockIdx.x * F;
  T* dgate = static_cast<T*>(p.dgate_up) + blockIdx.x * 2 * F;
  const bool whole =
      whole_groups<kVec<T>>(static_cast<const T*>(p.gate_up), F) && aligned16(p.dout) && aligned16(p.dgate_up);
  const Vec<T> z = load_group(gate, g, F, whole), up = load_group(gate + F, g, F, whole);
  const Vec<T> d = load_group(dout, g, F, whole);
  Vec<T> dz, dup;
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) {
    const Sigmoid s = sigmoid(z.v[i]);
    dz.v[i] = d.v[i] * up.v[i] * s.of * (z.v[i] * s.rest + 1.f);
    dup.v[i] = d.v[i] * z.v[i] * s.of;
  }
  store_group(dgate, g, F, whole, dz);
  store_group(dgate + F, g, F, whole, dup);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kMostThreads) swiglu_f32(const __grid_constant__ SwigluParams p) {
  forward<float>(p);
}
extern "C" __global__ void __launch_bounds__(kMostThreads) swiglu_bf16(const __grid_constant__ SwigluParams p) {
  forward<bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kMostThreads)
    swiglu_backward_f32(const __grid_constant__ SwigluBackwardParams p) {
  backward<float>(p);
}
extern "C" __global__ void __launch_bounds__(kMostThreads)
    swiglu_backward_bf16(const __grid_constant__ SwigluBackwardParams p) {
  backward<bf16>(p);
}
