// Tensor cores of sm_80 and later, one warp at a time: mma.sync m16n8k16 of bf16 with f32 sums, ldmatrix, and the order
// of 16-byte pieces in shared memory that keeps both ldmatrix and cp.async free of bank conflicts.
//
// Registers of lane (g = lane / 4, t = lane % 4); each word holds two bf16, the lower index in the lower half:
//   A [16, 16]  a[0] = (g, 2t..)  a[1] = (g + 8, 2t..)  a[2] = (g, 2t + 8..)  a[3] = (g + 8, 2t + 8..)
//   B [16, 8]   b[0] = (2t.., g)  b[1] = (2t + 8.., g)
//   C [16, 8]   c[0..1] = (g, 2t..)  c[2..3] = (g + 8, 2t..)
// ldmatrix of the 8 x 8 matrix whose row i lies at the address of lane i (x4: matrix j, lanes 8j .. 8j + 7, into r[j])
// gives (g, 2t..), the form of a[] from rows of A and of b[] from rows of B transposed; .trans gives (2t.., g) of it.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

namespace westwind {

// Where 16-byte piece `piece` of row `row` lies in a tile with rows of RowBytes: a bijection within each row, such that
// the same piece of 8 consecutive rows falls on 8 different groups of banks. Bytes; the tile starts on a boundary of
// 128.
template <int RowBytes>
__device__ __forceinline__ uint32_t swizzled(int row, int piece) {
  static_assert(RowBytes > 0 && RowBytes % 16 == 0, "rows of whole pieces");
  constexpr int kPower = RowBytes / 16 & -(RowBytes / 16);  // rows of an odd number of pieces need no permutation
  constexpr int kPieces = kPower < 8 ? kPower : 8;          // permuted among themselves
  constexpr int kRows = 8 / kPieces;                        // that begin on different banks anyway
  return static_cast<uint32_t>(row * RowBytes + (piece ^ (row / kRows % kPieces)) * 16);
}

// kAfter: bytes to add to the address, by the instruction itself.
template <int kAfter = 0>
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4+%5];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address), "n"(kAfter)
               : "memory");
}
template <int kAfter = 0>
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4+%5];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address), "n"(kAfter)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

// c += a · b.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = a · b + c. A sum begins this way: no register has to be set for it.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                         const float4& c) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
}

// Two f32 as bf16 in one word, `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

}  // namespace westwind
