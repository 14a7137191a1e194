// rope: a block turns a few rows. Its threads first find the sine and cosine of every (row, pair), which all heads of
// the row share; then they rotate 16 bytes of both halves at a time. Limited by HBM: each element of the turned heads
// is read and written once.
//
// An angle of position 10000 formed in f32 is off by up to 6e-4 rad, so angles are formed and reduced to a quarter turn
// in f64 (about ten operations); what is left is at most π/4 and its sine and cosine are polynomials in f32.
// Contract and formula: ops/rope.h
#include "common/fault.cuh"
#include "common/row.cuh"
#include "params/rope.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;
constexpr double kHalfPi = 1.5707963267948966, kHalfPiRest = 6.123233995736766e-17;  // their sum is π/2 to 107 bits

// cos and sin of an angle, to about an f32 ulp.
__device__ __forceinline__ float2 turn(double angle) {
  const double quarters = rint(angle * (1 / kHalfPi));
  const float r = static_cast<float>(fma(-quarters, kHalfPiRest, fma(-quarters, kHalfPi, angle)));
  const float r2 = r * r;
  float sine = -1.9515295891e-4f;
  sine = sine * r2 + 8.3321608736e-3f;
  sine = sine * r2 - 1.6666654611e-1f;
  sine = sine * r2 * r + r;
  float cosine = 2.443315711809948e-5f;
  cosine = cosine * r2 - 1.388731625493765e-3f;
  cosine = cosine * r2 + 4.166664568298827e-2f;
  cosine = cosine * r2 * r2 - 0.5f * r2 + 1.f;
  const int quarter = static_cast<int>(__double2ll_rn(quarters)) & 3;
  const float c = quarter % 2 == 0 ? cosine : sine, s = quarter % 2 == 0 ? sine : cosine;
  return make_float2(quarter == 1 || quarter == 2 ? -c : c, quarter >= 2 ? -s : s);
}

template <class T>
__device__ __forceinline__ void rotate(const RopeLaunch& launch) {
  __shared__ __align__(16) float cosines[kRopePairs], sines[kRopePairs];
  if (faulty(launch.fault)) return;
  const RopeParams& p = launch.p;
  const int pairs = launch.pairs, most = kRopePairs / pairs;
  const int64_t begin = blockIdx.x * int64_t{most};
  const int rows = p.T - begin < most ? static_cast<int>(p.T - begin) : most;
  for (int at = threadIdx.x; at < rows * pairs; at += kThreads) {
    const float2 it = turn(p.positions[begin + at / pairs] * launch.frequency[at % pairs]);
    cosines[at] = it.x;
    sines[at] = p.sign * it.y;
  }
  __syncthreads();

  // A thread turns the same pairs of one row in every so many heads.
  const int half = p.D / 2, groups = (pairs + kVec<T> - 1) / kVec<T>, slots = rows * groups, step = kThreads / slots;
  const int slot = threadIdx.x % slots, row = slot / groups, g = slot % groups;
  const int first_head = threadIdx.x / slots;
  if (first_head >= step) return;
  const bool whole = half % kVec<T> == 0 && aligned16(p.x);
  Vec<T> cosine, sine;
#pragma unroll
  for (int k = 0; k < kVec<T>; k += 4) {
    const Four c = load_group(cosines + row * pairs, (g * kVec<T> + k) / 4, pairs, whole);
    const Four s = load_group(sines + row * pairs, (g * kVec<T> + k) / 4, pairs, whole);
#pragma unroll
    for (int i = 0; i < 4; ++i) cosine.v[k + i] = c.v[i], sine.v[k + i] = s.v[i];
  }
  T* heads = static_cast<T*>(p.x) + (begin + row) * p.row_heads * p.D + launch.first;
  for (int head = first_head; head < p.heads; head += step) {
    T* low = heads + int64_t{head} * p.D;
    T* high = low + half;
    const Vec<T> a = load_group(low, g, pairs, whole), b = load_group(high, g, pairs, whole);
    Vec<T> c, d;
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      c.v[i] = a.v[i] * cosine.v[i] - b.v[i] * sine.v[i];
      d.v[i] = b.v[i] * cosine.v[i] + a.v[i] * sine.v[i];
    }
    store_group(low, g, pairs, whole, c);
    store_group(high, g, pairs, whole, d);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) rope_f32(const __grid_constant__ RopeLaunch p) {
  rotate<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) rope_bf16(const __grid_constant__ RopeLaunch p) {
  rotate<bf16>(p);
}
