// Loads and stores of 16 bytes as floats: 8 bf16 or 4 f32. Every kernel that memory limits reads and writes this way.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

#include "dtype.h"

namespace westwind {

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

template <class T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_f32<bf16>(float x) {
  return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// How many elements of T are 16 bytes.
template <class T>
constexpr int kVec = 16 / sizeof(T);

template <class T>
struct Vec {
  float v[kVec<T>];
};

// p on a 16-byte boundary.
template <class T>
__device__ __forceinline__ Vec<T> load_vec(const T* p) {
  Vec<T> out;
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      out.v[i] = __uint_as_float(words[i]);
    } else {
      out.v[2 * i] = __uint_as_float(words[i] << 16);
      out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
  return out;
}

// 16 bytes as they are in memory: of bf16, half the registers that its floats take.
using Packed = uint4;

template <class T>
__device__ __forceinline__ Packed pack(const Vec<T>& x) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(x.v[i]);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x.v[2 * i], x.v[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
template <class T>
__device__ __forceinline__ Vec<T> unpack(const Packed& x) {
  return load_vec(reinterpret_cast<const T*>(&x));
}

// To global memory, p on a 16-byte boundary. Not by assignment: nvcc merges that with a store by elements of the same
// buffer in another branch, and makes both four stores of 4 bytes.
template <class T>
__device__ __forceinline__ void store_packed(T* p, const Packed& x) {
  __stwb(reinterpret_cast<Packed*>(p), x);
}
template <class T>
__device__ __forceinline__ void store_vec(T* p, const Vec<T>& x) {
  store_packed(p, pack(x));
}

// Whether a pointer is on a 16-byte boundary.
__device__ __forceinline__ bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

}  // namespace westwind
