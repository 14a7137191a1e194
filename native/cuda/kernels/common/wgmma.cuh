// Warpgroup matrix multiply of sm_90a (PTX ISA, "wgmma"): D[64, N] (f32, registers) += A[64, 16] · B[16, N] (bf16). A
// comes from shared memory or registers, B from shared memory; either may lie K-major or MN-major there.
//
// Thread t of the warpgroup (warp w = t / 32, lane l) holds of D, for every group g of 8 columns:
//   d[4g + 0, 1]   row 16w + l / 4      columns 8g + 2 (l % 4) + 0, 1
//   d[4g + 2, 3]   row 16w + l / 4 + 8  same columns
// and of A in registers, k being the column: a[0] row l / 4, k 2 (l % 4) + 0, 1; a[1] row + 8; a[2] k + 8; a[3] both.
// So d[8j … 8j + 7] of one product, in pairs rounded to bf16, are a[0 … 3] of step j of the next.
//
// Order: fence_wgmma() · wgmma… · commit_wgmma() · wait_wgmma<n>(); until then neither D nor the operands are touched.
#pragma once
#include <stdint.h>

namespace westwind {

// How TMA or stores laid a tile down, and how wgmma reads it: rows of this many bytes, in which 16-byte pieces are
// XORed with the row's number. The value is the field of the descriptor.
enum class Swizzle : uint32_t { k128 = 1, k64 = 2, k32 = 3 };

constexpr __host__ __device__ uint32_t row_bytes(Swizzle swizzle) { return 256u >> static_cast<uint32_t>(swizzle); }

// Matrix descriptor (PTX ISA, "Matrix Descriptor Format"); addresses and distances in units of 16 bytes:
//   0-13 start   16-29 leading distance   32-45 stride distance   49-51 base offset (0: tiles are aligned)   62-63
//   swizzle
// All but the start is the same for every tile of a layout. Swizzled layouts are made of blocks of 8 rows.
//
// K-major: a row is one m (or n), the row's elements are k. Blocks of 8 rows follow each other at the stride distance;
// the leading distance is not used, for K = 16 lies within a row. Next 16 of k: start + 32 bytes.
// MN-major: a row is one k, its elements are 64 (32, 16) of m or n. Blocks of 8 k follow at the stride distance; the
// next 64 (32, 16) of m or n at the leading distance. Next 16 of k: start + 16 rows.
template <Swizzle kSwizzle>
__device__ __forceinline__ constexpr uint64_t wgmma_layout(uint32_t leading_bytes = 16) {
  return static_cast<uint64_t>(leading_bytes >> 4) << 16 | static_cast<uint64_t>(8 * row_bytes(kSwizzle) >> 4) << 32 |
         static_cast<uint64_t>(kSwizzle) << 62;
}
__device__ __forceinline__ uint64_t wgmma_descriptor(uint64_t layout, uint32_t address) {
  return layout | (address & 0x3ffff) >> 4;
}

// Before the first wgmma, and whenever other instructions wrote D or A in registers.
__device__ __forceinline__ void fence_wgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_wgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// At most kPending groups are still running.
template <int kPending>
__device__ __forceinline__ void wait_wgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Fragments of D to shared memory: 8 × 8 matrix j, the words r[j] of the warp, to the 8 rows of 16 bytes at the
// addresses of lanes 8j … 8j + 7.
__device__ __forceinline__ void stmatrix_x4(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}

template <int N>
struct Wgmma;

// Operand lists are literal text: eight registers a line, and the numbers of those behind D.
#define WESTWIND_D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define WESTWIND_D8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define WESTWIND_D16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define WESTWIND_D24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define WESTWIND_D32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define WESTWIND_D40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define WESTWIND_D48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define WESTWIND_D56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define WESTWIND_D64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define WESTWIND_D72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define WESTWIND_D80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define WESTWIND_D88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define WESTWIND_D96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define WESTWIND_D104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define WESTWIND_D112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define WESTWIND_D120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define WESTWIND_R8(i)                                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define WESTWIND_LIST1 WESTWIND_D0
#define WESTWIND_REGS1 WESTWIND_R8(0)
#define WESTWIND_LIST2 WESTWIND_LIST1 ", " WESTWIND_D8
#define WESTWIND_REGS2 WESTWIND_REGS1, WESTWIND_R8(8)
#define WESTWIND_LIST3 WESTWIND_LIST2 ", " WESTWIND_D16
#define WESTWIND_REGS3 WESTWIND_REGS2, WESTWIND_R8(16)
#define WESTWIND_LIST4 WESTWIND_LIST3 ", " WESTWIND_D24
#define WESTWIND_REGS4 WESTWIND_REGS3, WESTWIND_R8(24)
#define WESTWIND_LIST5 WESTWIND_LIST4 ", " WESTWIND_D32
#define WESTWIND_REGS5 WESTWIND_REGS4, WESTWIND_R8(32)
#define WESTWIND_LIST6 WESTWIND_LIST5 ", " WESTWIND_D40
#define WESTWIND_REGS6 WESTWIND_REGS5, WESTWIND_R8(40)
#define WESTWIND_LIST7 WESTWIND_LIST6 ", " WESTWIND_D48
#define WESTWIND_REGS7 WESTWIND_REGS6, WESTWIND_R8(48)
#define WESTWIND_LIST8 WESTWIND_LIST7 ", " WESTWIND_D56
#define WESTWIND_REGS8 WESTWIND_REGS7, WESTWIND_R8(56)
#define WESTWIND_LIST9 WESTWIND_LIST8 ", " WESTWIND_D64
#define WESTWIND_REGS9 WESTWIND_REGS8, WESTWIND_R8(64)
#define WESTWIND_LIST10 WESTWIND_LIST9 ", " WESTWIND_D72
#define WESTWIND_REGS10 WESTWIND_REGS9, WESTWIND_R8(72)
#define WESTWIND_LIST11 WESTWIND_LIST10 ", " WESTWIND_D80
#define WESTWIND_REGS11 WESTWIND_REGS10, WESTWIND_R8(80)
#define WESTWIND_LIST12 WESTWIND_LIST11 ", " WESTWIND_D88
#define WESTWIND_REGS12 WESTWIND_REGS11, WESTWIND_R8(88)
#define WESTWIND_LIST13 WESTWIND_LIST12 ", " WESTWIND_D96
#define WESTWIND_REGS13 WESTWIND_REGS12, WESTWIND_R8(96)
#define WESTWIND_LIST14 WESTWIND_LIST13 ", " WESTWIND_D104
#define WESTWIND_REGS14 WESTWIND_REGS13, WESTWIND_R8(104)
#define WESTWIND_LIST15 WESTWIND_LIST14 ", " WESTWIND_D112
#define WESTWIND_REGS15 WESTWIND_REGS14, WESTWIND_R8(112)
#define WESTWIND_LIST16 WESTWIND_LIST15 ", " WESTWIND_D120
#define WESTWIND_REGS16 WESTWIND_REGS15, WESTWIND_R8(120)

#define WESTWIND_WGMMA(N, LIST, REGS, P0, P1, P2, P3, P4, P5, P6)                                                  \
  template <>                                                                                                      \
  struct Wgmma<N> {                                                                                                \
    template <bool kTransA, bool kTransB>                                                                          \
    static __device__ __forceinline__ void multiply(float (&d)[N / 2], uint64_t a, uint64_t b, bool adds) {        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N             \
                   "k16.f32.bf16.bf16 {" LIST "}, " P0 ", " P1 ", p, 1, 1, " P3 ", " P4 ";\n}"                     \
                   : REGS                                                                                          \
                   : "l"(a), "l"(b), "r"(static_cast<int32_t>(adds)), "n"(kTransA ? 1 : 0), "n"(kTransB ? 1 : 0)); \
    }                                                                                                              \
    template <bool kTransB>                                                                                        \
    static __device__ __forceinline__ void multiply(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,         \
                                                    bool adds) {                                                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N             \
                   "k16.f32.bf16.bf16 {" LIST "}, {" P0 ", " P1 ", " P2 ", " P3 "}, " P4 ", p, 1, 1, " P6 ";\n}"   \
                   : REGS                                                                                          \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int32_t>(adds)),          \
                     "n"(kTransB ? 1 : 0));                                                                        \
    }                                                                                                              \
  };
WESTWIND_WGMMA(16, WESTWIND_LIST1, WESTWIND_REGS1, "%8", "%9", "%10", "%11", "%12", "%13", "%14")
WESTWIND_WGMMA(32, WESTWIND_LIST2, WESTWIND_REGS2, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
WESTWIND_WGMMA(48, WESTWIND_LIST3, WESTWIND_REGS3, "%24", "%25", "%26", "%27", "%28", "%29", "%30")
WESTWIND_WGMMA(64, WESTWIND_LIST4, WESTWIND_REGS4, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
WESTWIND_WGMMA(80, WESTWIND_LIST5, WESTWIND_REGS5, "%40", "%41", "%42", "%43", "%44", "%45", "%46")
WESTWIND_WGMMA(96, WESTWIND_LIST6, WESTWIND_REGS6, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
WESTWIND_WGMMA(112, WESTWIND_LIST7, WESTWIND_REGS7, "%56", "%57", "%58", "%59", "%60", "%61", "%62")
WESTWIND_WGMMA(128, WESTWIND_LIST8, WESTWIND_REGS8, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
WESTWIND_WGMMA(160, WESTWIND_LIST10, WESTWIND_REGS10, "%80", "%81", "%82", "%83", "%84", "%85", "%86")
WESTWIND_WGMMA(192, WESTWIND_LIST12, WESTWIND_REGS12, "%96", "%97", "%98", "%99", "%100", "%101", "%102")
WESTWIND_WGMMA(224, WESTWIND_LIST14, WESTWIND_REGS14, "%112", "%113", "%114", "%115", "%116", "%117", "%118")
WESTWIND_WGMMA(256, WESTWIND_LIST16, WESTWIND_REGS16, "%128", "%129", "%130", "%131", "%132", "%133", "%134")

#undef WESTWIND_WGMMA

// D = A · B, plus D where `adds`. Descriptors of one step of 16 along K; trans: MN-major.
template <int N, bool kTransA, bool kTransB>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool adds) {
  Wgmma<N>::template multiply<kTransA, kTransB>(d, a, b, adds);
}
// A in registers.
template <int N, bool kTransB>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool adds) {
  Wgmma<N>::template multiply<kTransB>(d, a, b, adds);
}

}  // namespace westwind
