// rope: a thread has 16 bytes of each half of one row's heads. It finds the sines and cosines of its pairs once, keeps
// them in registers and rotates the heads with them. Limited by HBM: each element of the turned heads is read and
// written once.
//
// An angle of position 10000 formed in f32 is off by up to 6e-4 rad, so angles are formed and reduced to a quarter turn
// in f64 (six operations); what is left is at most π/4 and its sine and cosine are polynomials in f32.
// Contract and formula: ops/rope.h
#include "common/fault.cuh"
#include "common/row.cuh"
#include "params/rope.h"

using namespace westwind;

namespace {

constexpr int kAtOnce = 4;  // heads on their way from memory

constexpr double kHalfPi = 1.5707963267948966, kHalfPiRest = 6.123233995736766e-17;  // their sum is π/2 to 107 bits

// Added to a number below 2^51, leaves its nearest whole number in the last bits of the sum.
constexpr double kShift = 6755399441055744.0;  // 1.5 · 2^52

// cos and sin of an angle, to about an f32 ulp.
__device__ __forceinline__ float2 turn(double angle) {
  const double shifted = fma(angle, 1 / kHalfPi, kShift), back = kShift - shifted;
  const float r = static_cast<float>(fma(back, kHalfPiRest, fma(back, kHalfPi, angle)));
  const float r2 = r * r;
  float sine = -1.9515295891e-4f;
  sine = sine * r2 + 8.3321608736e-3f;
  sine = sine * r2 - 1.6666654611e-1f;
  sine = sine * r2 * r + r;
  float cosine = 2.443315711809948e-5f;
  cosine = cosine * r2 - 1.388731625493765e-3f;
  cosine = cosine * r2 + 4.166664568298827e-2f;
  cosine = cosine * r2 * r2 - 0.5f * r2 + 1.f;
  const int quarter = __double2loint(shifted);
  const float c = quarter % 2 == 0 ? cosine : sine, s = quarter % 2 == 0 ? sine : cosine;
  return make_float2(((quarter + 1) & 2) != 0 ? -c : c, (quarter & 2) != 0 ? -s : s);
}

// Blocks: x is a few rows, y some of the heads.
template <class T>
__device__ __forceinline__ void rotate(const RopeLaunch& launch) {
  if (faulty(launch.fault)) return;
  const RopeParams& p = launch.p;
  const int half = p.D / 2, pairs = launch.pairs, groups = (pairs + kVec<T> - 1) / kVec<T>;
  const int rows = kRopeThreads / groups, at = static_cast<int>(threadIdx.x) / groups;
  const int g = static_cast<int>(threadIdx.x) - at * groups;
  const int64_t row = blockIdx.x * int64_t{rows} + at;
  if (at >= rows || row >= p.T) return;
  const double position = p.positions[row];
  float cosine[kVec<T>], sine[kVec<T>];
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) {
    const float2 it = turn(position * launch.frequency[g * kVec<T> + i]);
    cosine[i] = it.x, sine[i] = p.sign * it.y;
  }

  const bool whole = half % kVec<T> == 0 && aligned16(p.x);
  const int most = (p.heads + gridDim.y - 1) / gridDim.y, first = blockIdx.y * most, left = min(p.heads - first, most);
  T* low = static_cast<T*>(p.x) + (row * p.row_heads + first) * p.D + launch.first;
  for (int head = 0; head < left; head += kAtOnce, low += kAtOnce * p.D) {
    Packed a[kAtOnce], b[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (head + k >= left) break;
      a[k] = load_packed(low + k * p.D, g, pairs, whole);
      b[k] = load_packed(low + k * p.D + half, g, pairs, whole);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (head + k >= left) break;
      const Vec<T> x = unpack<T>(a[k]), y = unpack<T>(b[k]);
      Vec<T> c, d;
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        c.v[i] = x.v[i] * cosine[i] - y.v[i] * sine[i];
        d.v[i] = y.v[i] * cosine[i] + x.v[i] * sine[i];
      }
      store_group(low + k * p.D, g, pairs, whole, c);
      store_group(low + k * p.D + half, g, pairs, whole, d);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kRopeThreads) rope_f32(const __grid_constant__ RopeLaunch p) {
  rotate<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRopeThreads) rope_bf16(const __grid_constant__ RopeLaunch p) {
  rotate<bf16>(p);
}
