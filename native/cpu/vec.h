// One register of floats, as wide as the instruction set has it, by the compilers' vector extensions. Loads and stores
// are unaligned and convert bf16. Internal linkage throughout: see ops.h.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dtype.h"

namespace westwind {
namespace {

#if defined(WESTWIND_ISA_avx512)
constexpr int kLanes = 16;
#elif defined(WESTWIND_ISA_avx2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(4 * kLanes)));
typedef int32_t vi __attribute__((vector_size(4 * kLanes)));
typedef uint32_t vu __attribute__((vector_size(4 * kLanes)));
typedef uint16_t vh __attribute__((vector_size(2 * kLanes)));

inline vf splat(float x) { return x - vf{}; }  // x − 0 is x, also for −0: nothing to compute

inline vf load(const float* p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline vf load(const bf16* p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return (vf)(__builtin_convertvector(h, vu) << 16);
}

inline void store(float* p, vf v) { memcpy(p, &v, sizeof v); }

inline void store(bf16* p, vf v) {
  const vu bits = (vu)v;
  const vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vu nan = (bits >> 16) | 0x40u;
  const vi is_nan = v != v;
  const vh h = __builtin_convertvector((vu)((is_nan & (vi)nan) | (~is_nan & (vi)rounded)), vh);
  memcpy(p, &h, sizeof h);
}

inline vf select(vi mask, vf a, vf b) { return mask ? a : b; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }

// The first n (< kLanes) floats of p, the rest `fill`.
template <class T>
inline vf load_tail(const T* p, int n, float fill = 0) {
  vf v = splat(fill);
  for (int i = 0; i < n; ++i) v[i] = to_float(p[i]);
  return v;
}
template <class T>
inline void store_tail(T* p, vf v, int n) {
  for (int i = 0; i < n; ++i) store(p + i, static_cast<float>(v[i]));
}

// Lane counts as types, so that the full case compiles without its tail code.
struct AllLanes {
  constexpr operator int() const { return kLanes; }
};
struct SomeLanes {
  int n;
  operator int() const { return n; }
};

// body(i, lanes) over [0, n) in steps of kLanes; `lanes` is AllLanes except, at the end, SomeLanes.
template <class Body>
inline void for_lanes(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, AllLanes{});
  if (i < n) body(i, SomeLanes{static_cast<int>(n - i)});
}
template <class T>
inline vf load(const T* p, AllLanes) {
  return load(p);
}
template <class T>
inline vf load(const T* p, SomeLanes lanes) {
  return load_tail(p, lanes.n);
}
template <class T>
inline void store(T* p, vf v, AllLanes) {
  store(p, v);
}
template <class T>
inline void store(T* p, vf v, SomeLanes lanes) {
  store_tail(p, v, lanes.n);
}

inline vf sqrt(vf v) {
  vf out;
  for (int i = 0; i < kLanes; ++i) out[i] = __builtin_sqrtf(v[i]);
  return out;
}

inline float sum(vf v) {  // a fixed tree: halves onto halves
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}
inline float max(vf v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// e^x to about 1 ulp for x in [-87, 88]; 0 below, +inf above, NaN stays NaN. Cody–Waite reduction, degree-6 polynomial.
inline vf exp(vf x) {
  const vf clamped = max(min(x, splat(88.8f)), splat(-87.3f));
  const vf shifted = clamped * 1.44269504088896341f + 12582912.f;  // 1.5·2^23: rounds to nearest in the low bits
  const vf n = shifted - 12582912.f;
  const vf r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const vi e = ((vi)shifted - 0x4b400000);
  const vi half = e >> 1;  // two steps, so that 2^128 is reached without an invalid exponent
  const vf scaled = p * (vf)((half + 127) << 23) * (vf)((e - half + 127) << 23);
  const vf low = select(x < splat(-87.3f), vf{}, scaled);
  return select(x != x, x, select(x > splat(88.73f), splat(__builtin_inff()), low));
}

}  // namespace
}  // namespace westwind
