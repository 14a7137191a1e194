// fill, scale, add, cast: one pass, 16 bytes a thread where the memory is on such a boundary. Limited by HBM.
// Contract: ops/elementwise.h
#include "common/vec.cuh"
#include "ops/elementwise.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t first() { return blockIdx.x * int64_t{kThreads} + threadIdx.x; }
__device__ __forceinline__ int64_t stride() { return gridDim.x * int64_t{kThreads}; }

// body(i) for each group of 16 bytes, then tail(i) for each element behind the last group; `vector`: groups may be
// used.
template <int Width, class Body, class Tail>
__device__ __forceinline__ void for_groups(int64_t n, bool vector, const Body& body, const Tail& tail) {
  const int64_t groups = vector ? n / Width : 0;
  for (int64_t g = first(); g < groups; g += stride()) body(g * Width);
  for (int64_t i = groups * Width + first(); i < n; i += stride()) tail(i);
}

template <class T>
__device__ __forceinline__ void scale(const ScaleParams& p) {
  T* x = static_cast<T*>(p.x);
  for_groups<kVec<T>>(
      p.n, aligned16(x),
      [&](int64_t i) {
        Vec<T> v = load_vec(x + i);
#pragma unroll
        for (float& e : v.v) e *= p.factor;
        store_vec(x + i, v);
      },
      [&](int64_t i) { x[i] = from_f32<T>(to_f32(x[i]) * p.factor); });
}

template <class T>
__device__ __forceinline__ void add(const AddParams& p) {
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b);
  T* out = static_cast<T*>(p.out);
  for_groups<kVec<T>>(
      p.n, aligned16(a) && aligned16(b) && aligned16(out),
      [&](int64_t i) {
        Vec<T> x = load_vec(a + i);
        const Vec<T> y = load_vec(b + i);
#pragma unroll
        for (int k = 0; k < kVec<T>; ++k) x.v[k] += y.v[k];
        store_vec(out + i, x);
      },
      [&](int64_t i) { out[i] = from_f32<T>(to_f32(a[i]) + to_f32(b[i])); });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) fill_32(const __grid_constant__ FillParams p) {
  const uint32_t bits =
      p.dtype == DType::kI32 ? static_cast<uint32_t>(static_cast<int32_t>(p.value)) : __float_as_uint(p.value);
  uint32_t* x = static_cast<uint32_t*>(p.x);
  for_groups<4>(
      p.n, aligned16(x), [&](int64_t i) { store_packed(x + i, make_uint4(bits, bits, bits, bits)); },
      [&](int64_t i) { x[i] = bits; });
}

extern "C" __global__ void __launch_bounds__(kThreads) fill_16(const __grid_constant__ FillParams p) {
  const bf16 value = from_f32<bf16>(p.value);
  const uint32_t bits = value.bits | static_cast<uint32_t>(value.bits) << 16;
  bf16* x = static_cast<bf16*>(p.x);
  for_groups<8>(
      p.n, aligned16(x), [&](int64_t i) { store_packed(x + i, make_uint4(bits, bits, bits, bits)); },
      [&](int64_t i) { x[i] = value; });
}

extern "C" __global__ void __launch_bounds__(kThreads) scale_f32(const __grid_constant__ ScaleParams p) {
  scale<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) scale_bf16(const __grid_constant__ ScaleParams p) {
  scale<bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) add_f32(const __grid_constant__ AddParams p) { add<float>(p); }
extern "C" __global__ void __launch_bounds__(kThreads) add_bf16(const __grid_constant__ AddParams p) { add<bf16>(p); }

extern "C" __global__ void __launch_bounds__(kThreads) cast_f32_to_bf16(const __grid_constant__ CastParams p) {
  const float* x = static_cast<const float*>(p.x);
  bf16* out = static_cast<bf16*>(p.out);
  for_groups<8>(
      p.n, aligned16(x) && aligned16(out),
      [&](int64_t i) {
        const Vec<float> a = load_vec(x + i), b = load_vec(x + i + 4);
        Vec<bf16> y;
#pragma unroll
        for (int k = 0; k < 4; ++k) y.v[k] = a.v[k], y.v[4 + k] = b.v[k];
        store_vec(out + i, y);
      },
      [&](int64_t i) { out[i] = from_f32<bf16>(x[i]); });
}

extern "C" __global__ void __launch_bounds__(kThreads) cast_bf16_to_f32(const __grid_constant__ CastParams p) {
  const bf16* x = static_cast<const bf16*>(p.x);
  float* out = static_cast<float*>(p.out);
  for_groups<8>(
      p.n, aligned16(x) && aligned16(out),
      [&](int64_t i) {
        const Vec<bf16> y = load_vec(x + i);
        Vec<float> a, b;
#pragma unroll
        for (int k = 0; k < 4; ++k) a.v[k] = y.v[k], b.v[k] = y.v[4 + k];
        store_vec(out + i, a);
        store_vec(out + i + 4, b);
      },
      [&](int64_t i) { out[i] = to_f32(x[i]); });
}
