// Element types shared by host and device code. bf16 is the upper half of an f32; rounding is to nearest even.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace westwind {

enum class DType : int32_t { kF32 = 0, kBf16 = 1, kI32 = 2 };

struct bf16 {
  uint16_t bits;
};

namespace {  // internal linkage: files built for different instruction sets must not share these bodies

inline int64_t size_of(DType type) { return type == DType::kBf16 ? 2 : 4; }

inline float to_float(float x) { return x; }

inline float to_float(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

inline bf16 to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<uint16_t>((bits >> 16) | 0x40u)};  // quiet NaN
  return bf16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline void store(float* out, float x) { *out = x; }
inline void store(bf16* out, float x) { *out = to_bf16(x); }

}  // namespace
}  // namespace westwind
