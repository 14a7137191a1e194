// Rows of a matrix in groups: 16 bytes, or 4 elements. Where a row does not lie on such a boundary, or ends inside a
// group, the group is read element by element: what a thread holds, and so the order of every sum, stays the same.
#pragma once
#include "vec.cuh"

namespace westwind {

// Whether all rows of n elements of a matrix are whole groups of kWidth elements on their boundary.
template <int kWidth, class T>
__device__ __forceinline__ bool whole_groups(const T* matrix, int64_t n) {
  return n % kWidth == 0 && reinterpret_cast<uintptr_t>(matrix) % (kWidth * sizeof(T)) == 0;
}

// Group g of a row of n; `fill` behind its end. whole: of whole_groups.
template <class T>
__device__ __forceinline__ Vec<T> load_group(const T* row, int64_t g, int64_t n, bool whole, float fill = 0.f) {
  const int64_t at = g * kVec<T>;
  if (whole) return load_vec(row + at);
  Vec<T> out;
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) out.v[i] = at + i < n ? to_f32(row[at + i]) : fill;
  return out;
}

template <class T>
__device__ __forceinline__ void store_group(T* row, int64_t g, int64_t n, bool whole, const Vec<T>& x) {
  const int64_t at = g * kVec<T>;
  if (whole) return store_vec(row + at, x);
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i)
    if (at + i < n) row[at + i] = from_f32<T>(x.v[i]);
}

// Group g of a row of n, zeros behind its end.
template <class T>
__device__ __forceinline__ Packed load_packed(const T* row, int64_t g, int64_t n, bool whole) {
  if (whole) return *reinterpret_cast<const Packed*>(row + g * kVec<T>);
  return pack(load_group(row, g, n, false));
}

// Four elements: 16 bytes of f32 beside 8 of bf16, for kernels that move both at once.
using Four = Vec<float>;

__device__ __forceinline__ Four plus(Four x, const Four& y) {
#pragma unroll
  for (int i = 0; i < 4; ++i) x.v[i] += y.v[i];
  return x;
}

template <class T>
__device__ __forceinline__ Four load_four(const T* row, int64_t g, int64_t n, bool whole) {
  if constexpr (sizeof(T) == 4) {
    return load_group(row, g, n, whole);
  } else {
    const int64_t at = g * 4;
    Four out;
    if (whole) {
      const uint2 raw = *reinterpret_cast<const uint2*>(row + at);
      out.v[0] = __uint_as_float(raw.x << 16), out.v[1] = __uint_as_float(raw.x & 0xffff0000u);
      out.v[2] = __uint_as_float(raw.y << 16), out.v[3] = __uint_as_float(raw.y & 0xffff0000u);
      return out;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) out.v[i] = at + i < n ? to_f32(row[at + i]) : 0.f;
    return out;
  }
}

template <class T>
__device__ __forceinline__ void store_four(T* row, int64_t g, int64_t n, bool whole, const Four& x) {
  if constexpr (sizeof(T) == 4) {
    store_group(row, g, n, whole, x);
  } else {
    const int64_t at = g * 4;
    if (whole) {
      const __nv_bfloat162 low = __floats2bfloat162_rn(x.v[0], x.v[1]), high = __floats2bfloat162_rn(x.v[2], x.v[3]);
      return __stwb(reinterpret_cast<uint2*>(row + at),
                    make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (at + i < n) row[at + i] = from_f32<T>(x.v[i]);
  }
}

}  // namespace westwind
