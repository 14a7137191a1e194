// The last step of every gemm kernel: how a sum goes into C.
#pragma once
#include "mma.cuh"
#include "params/gemm.h"
#include "vec.cuh"

namespace westwind {

// Products rounded apart from the sum only where two of them meet: the same bits wherever it is done.
__device__ __forceinline__ float updated(float sum, float alpha, float beta, float c) {
  return beta == 0.f ? alpha * sum : __fmaf_rn(alpha, sum, __fmul_rn(beta, c));
}

// Four neighbours in C, on a boundary of four elements; past the first-level cache, where nobody would find them again.
__device__ __forceinline__ float4 load_four(const float* c) { return __ldcg(reinterpret_cast<const float4*>(c)); }
__device__ __forceinline__ float4 load_four(const bf16* c) {
  const uint2 raw = __ldcg(reinterpret_cast<const uint2*>(c));
  return make_float4(__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y << 16),
                     __uint_as_float(raw.y & 0xffff0000u));
}
__device__ __forceinline__ void store_four(float* c, const float4& v) { __stcg(reinterpret_cast<float4*>(c), v); }
__device__ __forceinline__ void store_four(bf16* c, const float4& v) {
  __stcg(reinterpret_cast<uint2*>(c), make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)));
}

// Where the sums of one tile go: C, or the workspace as they are.
struct GemmTarget {
  void* c;
  int64_t ld, rows, columns;
  float alpha, beta;
  bool is_bf16, fours;  // fours: groups of four columns lie on their boundary, and none straddles the end

  // Of chunk `chunk`; what is not the first adds to C.
  __device__ __forceinline__ GemmTarget(const GemmKernelParams& p, int64_t chunk)
      : c(p.g.c), ld(p.g.ldc), rows(p.g.M), columns(p.g.N), alpha(p.g.alpha), beta(chunk == 0 ? p.g.beta : 1.f) {
    is_bf16 = p.g.c_type == DType::kBf16;
    if (p.partial != nullptr) {
      c = p.partial + chunk * rows * columns;
      ld = columns, alpha = 1.f, beta = 0.f, is_bf16 = false;
    }
    fours = ((ld | columns) & 3) == 0 && (reinterpret_cast<uintptr_t>(c) & (is_bf16 ? 7 : 15)) == 0;
  }

  // No sum needs old values, and groups of eight columns are 16 bytes on their boundary, none across the end.
  __device__ __forceinline__ bool rounded_eights() const {
    return is_bf16 && beta == 0.f && ((ld | columns) & 7) == 0 && (reinterpret_cast<uintptr_t>(c) & 15) == 0;
  }

  // Columns [column, column + 4), column a multiple of 4, of Count rows: row, row + step, ...
  template <int Count>
  __device__ __forceinline__ void put(int64_t row, int step, int64_t column, const float4 (&sums)[Count]) const {
    if (fours && is_bf16) {
      put_fours<bf16>(row, step, column, sums);
    } else if (fours) {
      put_fours<float>(row, step, column, sums);
    } else {
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        if (row + i * step >= rows) break;
        put_each(row + i * step, column, sums[i]);
      }
    }
  }

 private:
  // All of C is on its way before the first of it is needed.
  template <class T, int Count>
  __device__ __forceinline__ void put_fours(int64_t row, int step, int64_t column, const float4 (&sums)[Count]) const {
    if (column >= columns) return;
    T* const at = static_cast<T*>(c) + row * ld + column;
    const int64_t left = rows - row, ahead = step * ld;
    if (beta == 0.f) {
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        if (i * step < left) store_four(at + i * ahead, updated_four(sums[i], 0.f, {}));
      }
      return;
    }
    float4 old[Count];
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      if (i * step < left) old[i] = load_four(at + i * ahead);
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      if (i * step < left) store_four(at + i * ahead, updated_four(sums[i], beta, old[i]));
    }
  }

  __device__ __forceinline__ float4 updated_four(const float4& s, float scale, const float4& old) const {
    return make_float4(updated(s.x, alpha, scale, old.x), updated(s.y, alpha, scale, old.y),
                       updated(s.z, alpha, scale, old.z), updated(s.w, alpha, scale, old.w));
  }

  __device__ __forceinline__ void put_each(int64_t row, int64_t column, const float4& sum) const {
    const int count = static_cast<int>(min(columns - column, int64_t{4}));
#pragma unroll 1
    for (int e = 0; e < count; ++e) {
      const float s = e == 0 ? sum.x : e == 1 ? sum.y : e == 2 ? sum.z : sum.w;
      const int64_t at = row * ld + column + e;
      if (is_bf16) {
        bf16* const x = static_cast<bf16*>(c) + at;
        *x = from_f32<bf16>(updated(s, alpha, beta, beta == 0.f ? 0.f : to_f32(*x)));
      } else {
        float* const x = static_cast<float*>(c) + at;
        *x = updated(s, alpha, beta, beta == 0.f ? 0.f : *x);
      }
    }
  }
};

// The tile of a block: neighbours in time share rows and columns of tiles, so that what they read stays in the second
// cache. Groups of 8 rows of tiles, column by column.
__device__ __forceinline__ int2 tile_of(int block, int tiles_m, int tiles_n) {
  constexpr int kGroup = 8;
  const int group = block / (kGroup * tiles_n);
  const int rows = min(kGroup, tiles_m - group * kGroup);
  const int rest = block - group * kGroup * tiles_n;
  return make_int2(group * kGroup + rest % rows, rest / rows);
}

}  // namespace westwind
