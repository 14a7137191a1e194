// Eight tile registers of 16 rows of 64 bytes and the product of two of them (AMX-BF16). A tile of bf16 is 16 rows of
// 32 values; a tile of sums 16 rows of 16 f32.
//
//   dpbf16<c, a, b>: c[m][n] += Σ a[m][2k]·b[k][2n] + Σ a[m][2k + 1]·b[k][2n + 1], k from 0 to 15
//
// Each of the two sums is a chain of fused multiply-adds from 0 in order of k, then they are added, then c; rounding is
// to nearest even, and subnormal numbers count as 0 wherever they appear. (Intel's manual, TDPBF16PS.)
//
// The registers are the thread's: whatever uses tiles makes one `Tiles` in the body that one thread runs, none within
// another. The compiler does not know these registers, so there is nothing it could spill.
#pragma once
#include <stdint.h>

#include "vec.h"

namespace westwind {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;              // of a row
constexpr int kTilePairs = kTileBytes / 4;  // pairs of bf16 in a row, or f32
constexpr int kTileDepth = kTileBytes / 2;  // values of k that one product takes
constexpr int kTileSize = kTileRows * kTileBytes;

#ifdef WESTWIND_SOFTWARE_TILES

// The same in C++, for machines without them.
class Tiles {
 public:
  Tiles() { memset(tiles_, 0, sizeof tiles_); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int t>
  void zero() {
    memset(tiles_[t], 0, kTileSize);
  }
  template <int t>
  void load(const void* from, int64_t row_bytes) {
    for (int i = 0; i < kTileRows; ++i)
      memcpy(tiles_[t] + i * kTileBytes, static_cast<const char*>(from) + i * row_bytes, kTileBytes);
  }
  template <int t>
  void store(void* to, int64_t row_bytes) const {
    for (int i = 0; i < kTileRows; ++i)
      memcpy(static_cast<char*>(to) + i * row_bytes, tiles_[t] + i * kTileBytes, kTileBytes);
  }
  template <int c, int a, int b>
  void dpbf16() {
    product(tiles_[c], tiles_[a], tiles_[b]);
  }

 private:
  typedef float v8 __attribute__((vector_size(32)));
  typedef uint32_t u8 __attribute__((vector_size(32)));

  // Subnormal numbers as 0, to nearest even: MXCSR's DAZ, FTZ and all exceptions masked. What lies between is tied to
  // its place by the memory that it reads and writes.
  static void set_mxcsr(uint32_t value) { asm volatile("ldmxcsr %0" : : "m"(value) : "memory"); }

  __attribute__((noinline)) static void product(char* c, const char* a, const char* b) {
    uint32_t before;
    asm volatile("stmxcsr %0" : "=m"(before) : : "memory");
    set_mxcsr(0x9fc0);
    float even_of_b[16][16], odd_of_b[16][16];
    for (int k = 0; k < kTileRows; ++k) {
      for (int n = 0; n < 16; n += 8) {
        u8 pairs;
        memcpy(&pairs, b + k * kTileBytes + n * 4, sizeof pairs);
        const u8 low = pairs << 16, high = pairs & 0xffff0000u;
        memcpy(even_of_b[k] + n, &low, sizeof low);
        memcpy(odd_of_b[k] + n, &high, sizeof high);
      }
    }
    for (int m = 0; m < kTileRows; ++m) {
      v8 even[2] = {}, odd[2] = {};
      for (int k = 0; k < kTilePairs; ++k) {
        bf16 pair[2];
        memcpy(pair, a + m * kTileBytes + k * 4, sizeof pair);
        const float low = to_float(pair[0]), high = to_float(pair[1]);
        for (int half = 0; half < 2; ++half) {
          v8 b0, b1;
          memcpy(&b0, even_of_b[k] + 8 * half, sizeof b0);
          memcpy(&b1, odd_of_b[k] + 8 * half, sizeof b1);
          even[half] += low * b0;
          odd[half] += high * b1;
        }
      }
      for (int half = 0; half < 2; ++half) {
        char* at = c + m * kTileBytes + half * 32;
        v8 sum;
        memcpy(&sum, at, sizeof sum);
        sum += even[half] + odd[half];
        memcpy(at, &sum, sizeof sum);
      }
    }
    set_mxcsr(before);
  }

  alignas(64) char tiles_[8][kTileSize];
};

#elif defined(WESTWIND_ISA_amx)

class Tiles {
 public:
  Tiles() {
    struct Shape {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    };
    alignas(64) Shape shape;
    for (int t = 0; t < 8; ++t) {
      shape.row_bytes[t] = kTileBytes;
      shape.rows[t] = kTileRows;
    }
    asm volatile("ldtilecfg %0" : : "m"(shape));
  }
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int t>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(t));
  }
  // "memory": what was written before is in memory. The compilers' own intrinsics do not say so.
  template <int t>
  void load(const void* from, int64_t row_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(t) : "memory");
  }
  template <int t>
  void store(void* to, int64_t row_bytes) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(row_bytes), "i"(t) : "memory");
  }
  template <int c, int a, int b>
  void dpbf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};

#endif

}  // namespace
}  // namespace westwind
