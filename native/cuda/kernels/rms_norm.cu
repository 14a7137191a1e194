// rms_norm: a team of threads keeps a row in registers, so that it is read once; beyond 16 elements a thread the rest
// of the row is read a second time, from L2. Teams are the least power of two of threads, 32 to 512, that holds a row.
// f32 after the load.
// Backward: a team walks a chunk of rows and keeps its share of weight and dweight in registers; a second kernel adds
// the chunks in a fixed order. Limited by HBM: 2 or 4 elements of the dtype per element forward (without, with
// residual), 3 or 4 backward, and 8 bytes of partial dweight per column and chunk. Contract: ops/rms_norm.h
#include "common/reduce.cuh"
#include "common/row.cuh"
#include "params/rms_norm.h"

using namespace westwind;

namespace {

constexpr int kHeldElements = 16;  // of a row, by a thread

template <class T>
constexpr int kHeld = kHeldElements / kVec<T>;  // groups

template <int kTeam>
constexpr int kThreads = kTeam == 32 ? 256 : kTeam;  // of a block

// Of backward, on a multiprocessor. Small blocks have 170 registers a thread: left alone, ptxas held them to 128, and
// one spilled.
template <int kTeam>
constexpr int kLeastBlocks = kThreads<kTeam> < 256 ? 384 / kThreads<kTeam> : 1;

template <int kTeam>
__device__ __forceinline__ float team_sum(float x, float* partials) {
  if constexpr (kTeam == 32) return warp_sum(x);
  return block_sum<kTeam>(x, partials);
}

// body(held index, g) for the groups that a thread holds, then rest(g) for those of its groups that it does not.
template <class T, int kTeam, class Body>
__device__ __forceinline__ void for_held(int64_t groups, const Body& body) {
#pragma unroll
  for (int u = 0; u < kHeld<T>; ++u) {
    const int64_t g = threadIdx.x % kTeam + u * kTeam;
    if (g < groups) body(u, g);
  }
}
template <class T, int kTeam, class Rest>
__device__ __forceinline__ void for_rest(int64_t groups, const Rest& rest) {
  for (int64_t g = threadIdx.x % kTeam + kHeld<T> * kTeam; g < groups; g += kTeam) rest(g);
}

// x + y as the dtype has it: what the rest of the model reads is what is normalised.
template <class T>
__device__ __forceinline__ Vec<T> rounded_sum(const Vec<T>& x, const Vec<T>& y) {
  Vec<T> out;
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) out.v[i] = to_f32(from_f32<T>(x.v[i] + y.v[i]));
  return out;
}

template <class T, int kTeam>
__device__ __forceinline__ void forward(const RmsNormParams& p) {
  __shared__ float partials[16];
  constexpr int kTeams = kThreads<kTeam> / kTeam;
  const int64_t t = blockIdx.x * int64_t{kTeams} + threadIdx.x / kTeam;
  if (t >= p.T) return;  // whole warps: a block of more teams than one has no barrier
  const int64_t C = p.C, groups = (C + kVec<T> - 1) / kVec<T>, at = t * C;
  const T* weight = static_cast<const T*>(p.weight);
  const T* x = static_cast<const T*>(p.x);
  const T* residual = static_cast<const T*>(p.residual);
  T* total = static_cast<T*>(p.sum);
  T* y = static_cast<T*>(p.y);
  const bool whole =
      whole_groups<kVec<T>>(x, C) && aligned16(residual) && aligned16(total) && aligned16(y) && aligned16(weight);

  Packed held[kHeld<T>] = {}, other[kHeld<T>] = {};
  for_held<T, kTeam>(groups, [&](int u, int64_t g) { held[u] = load_packed(x + at, g, C, whole); });
  if (residual != nullptr)
    for_held<T, kTeam>(groups, [&](int u, int64_t g) { other[u] = load_packed(residual + at, g, C, whole); });

  float squares = 0.f;
  const auto square = [&](const Vec<T>& s) {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) squares += s.v[i] * s.v[i];
  };
  for_held<T, kTeam>(groups, [&](int u, int64_t g) {
    Vec<T> s = unpack<T>(held[u]);
    if (residual != nullptr) {
      s = rounded_sum(s, unpack<T>(other[u]));
      held[u] = pack(s);
      store_group(total + at, g, C, whole, s);
    }
    square(s);
  });
  for_rest<T, kTeam>(groups, [&](int64_t g) {
    Vec<T> s = load_group(x + at, g, C, whole);
    if (residual != nullptr) {
      s = rounded_sum(s, load_group(residual + at, g, C, whole));
      store_group(total + at, g, C, whole, s);
    }
    square(s);
  });
  const float rstd = 1.f / sqrtf(team_sum<kTeam>(squares, partials) / static_cast<float>(C) + p.eps);
  if (threadIdx.x % kTeam == 0) p.rstd[t] = rstd;

  const auto write = [&](int64_t g, Vec<T> s) {
    const Vec<T> w = load_group(weight, g, C, whole);
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) s.v[i] = s.v[i] * rstd * w.v[i];
    store_group(y + at, g, C, whole, s);
  };
  for_held<T, kTeam>(groups, [&](int u, int64_t g) { write(g, unpack<T>(held[u])); });
  const T* s = (residual != nullptr ? total : x) + at;
  for_rest<T, kTeam>(groups, [&](int64_t g) { write(g, load_group(s, g, C, whole)); });
}

// Where a thread puts the dweight of a group: quarters of neighbouring threads side by side, so that stores are whole
// sectors. As rms_norm_backward_dweight reads it.
template <class T>
__device__ __forceinline__ float* quarter(float* partial, int64_t groups, int64_t g, int k) {
  return partial + (k * groups + g) * 4;
}

template <class T>
__device__ __forceinline__ void add_to_partial(float* partial, int64_t groups, int64_t g, bool first,
                                               const Vec<T>& dweight) {
#pragma unroll
  for (int k = 0; k < kVec<T> / 4; ++k) {
    float* to = quarter<T>(partial, groups, g, k);
    const Four sum{dweight.v[4 * k], dweight.v[4 * k + 1], dweight.v[4 * k + 2], dweight.v[4 * k + 3]};
    store_vec(to, first ? sum : plus(load_vec(to), sum));
  }
}

template <class T, int kTeam>
__device__ __forceinline__ void backward(const RmsNormBackwardLaunch& launch) {
  __shared__ float partials[2][16];  // in turn, so that one barrier a row is enough
  constexpr int kTeams = kThreads<kTeam> / kTeam;
  const RmsNormBackwardParams& p = launch.p;
  const int64_t chunk = blockIdx.x * int64_t{kTeams} + threadIdx.x / kTeam;
  if (chunk >= launch.chunks) return;
  const int64_t C = p.C, groups = (C + kVec<T> - 1) / kVec<T>;
  const int64_t begin = chunk * launch.rows, end = begin + launch.rows < p.T ? begin + launch.rows : p.T;
  float* partial = launch.partials + chunk * launch.width;
  const T* weight = static_cast<const T*>(p.weight);
  const T* dresidual = static_cast<const T*>(p.dresidual);
  const bool whole = whole_groups<kVec<T>>(static_cast<const T*>(p.dy), C) && aligned16(p.s) && aligned16(weight) &&
                     aligned16(dresidual) && aligned16(p.dx);

  Packed w[kHeld<T>] = {};
  Vec<T> dweight[kHeld<T>] = {};
  for_held<T, kTeam>(groups, [&](int u, int64_t g) { w[u] = load_packed(weight, g, C, whole); });
  for (int64_t t = begin; t < end; ++t) {
    const T* dy = static_cast<const T*>(p.dy) + t * C;
    const T* s = static_cast<const T*>(p.s) + t * C;
    const T* beside = dresidual == nullptr ? nullptr : dresidual + t * C;
    T* dx = static_cast<T*>(p.dx) + t * C;
    const float rstd = p.rstd[t];
    Packed held_dy[kHeld<T>] = {}, held_s[kHeld<T>] = {}, held_beside[kHeld<T>] = {};
    for_held<T, kTeam>(groups, [&](int u, int64_t g) {
      held_dy[u] = load_packed(dy, g, C, whole);
      held_s[u] = load_packed(s, g, C, whole);
      if (beside != nullptr) held_beside[u] = load_packed(beside, g, C, whole);
    });

    float dot = 0.f;  // Σ g · s
    const auto sum_up = [&](const Vec<T>& d, const Vec<T>& v, const Vec<T>& by, Vec<T>& into) {
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        const float ds = d.v[i] * v.v[i];
        into.v[i] += ds * rstd;
        dot += ds * by.v[i];
      }
    };
#pragma unroll
    for (int u = 0; u < kHeld<T>; ++u) sum_up(unpack<T>(held_dy[u]), unpack<T>(held_s[u]), unpack<T>(w[u]), dweight[u]);
    for_rest<T, kTeam>(groups, [&](int64_t g) {
      Vec<T> here{};
      sum_up(load_group(dy, g, C, whole), load_group(s, g, C, whole), load_group(weight, g, C, whole), here);
      add_to_partial(partial, groups, g, t == begin, here);
    });
    const float pull = team_sum<kTeam>(dot, partials[t % 2]) / static_cast<float>(C) * rstd * rstd;

    const auto write = [&](int64_t g, const Vec<T>& d, const Vec<T>& v, const Vec<T>& by, const auto& add) {
      Vec<T> out;
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) out.v[i] = d.v[i] * by.v[i] - v.v[i] * pull;
      if (beside == nullptr) {
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) out.v[i] *= rstd;
      } else {
        const Vec<T> more = add();
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) out.v[i] = out.v[i] * rstd + more.v[i];
      }
      store_group(dx, g, C, whole, out);
    };
    for_held<T, kTeam>(groups, [&](int u, int64_t g) {
      write(g, unpack<T>(held_dy[u]), unpack<T>(held_s[u]), unpack<T>(w[u]), [&] { return unpack<T>(held_beside[u]); });
    });
    for_rest<T, kTeam>(groups, [&](int64_t g) {
      write(g, load_group(dy, g, C, whole), load_group(s, g, C, whole), load_group(weight, g, C, whole),
            [&] { return load_group(beside, g, C, whole); });
    });
  }
  for_held<T, kTeam>(groups, [&](int u, int64_t g) { add_to_partial(partial, groups, g, true, dweight[u]); });
}

constexpr int kSumWarps = 16;

// dweight += the partials of all chunks. A warp takes 32 groups of 4 columns and every 16th chunk; the warps are added
// in order.
template <class T>
__device__ __forceinline__ void sum_chunks(const RmsNormBackwardLaunch& launch) {
  __shared__ Packed partials[kSumWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t quarters = launch.width / 4, groups = launch.width / kVec<T>;
  const int64_t column = blockIdx.x * int64_t{32} + lane;  // in groups of 4
  constexpr int kQuarters = kVec<T> / 4;
  Four total{};
  if (column < quarters) {
    const float* at = quarter<T>(launch.partials, groups, column / kQuarters, column % kQuarters);
#pragma unroll 8
    for (int64_t chunk = warp; chunk < launch.chunks; chunk += kSumWarps)
      total = plus(total, load_vec(at + chunk * launch.width));
  }
  partials[warp][lane] = pack<float>(total);
  __syncthreads();
  const int64_t C = launch.p.C;
  if (warp != 0 || column * 4 >= C) return;
  for (int other = 1; other < kSumWarps; ++other) total = plus(total, unpack<float>(partials[other][lane]));
  const bool whole = whole_groups<4>(launch.p.dweight, C);
  const Four before = load_four(launch.p.dweight, column, C, whole);
  store_four(launch.p.dweight, column, C, whole, plus(before, total));
}

}  // namespace

#define RMS_NORM(name, T, kTeam)                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads<kTeam>)                             \
      rms_norm_##name##_##kTeam(const __grid_constant__ RmsNormParams p) {                  \
    forward<T, kTeam>(p);                                                                   \
  }                                                                                         \
  extern "C" __global__ void __launch_bounds__(kThreads<kTeam>, kLeastBlocks<kTeam>)        \
      rms_norm_backward_##name##_##kTeam(const __grid_constant__ RmsNormBackwardLaunch p) { \
    backward<T, kTeam>(p);                                                                  \
  }
RMS_NORM(f32, float, 32)
RMS_NORM(f32, float, 64)
RMS_NORM(f32, float, 128)
RMS_NORM(f32, float, 256)
RMS_NORM(f32, float, 512)
RMS_NORM(bf16, bf16, 32)
RMS_NORM(bf16, bf16, 64)
RMS_NORM(bf16, bf16, 128)
RMS_NORM(bf16, bf16, 256)
RMS_NORM(bf16, bf16, 512)
#undef RMS_NORM

extern "C" __global__ void __launch_bounds__(32 * kSumWarps)
    rms_norm_backward_dweight_f32(const __grid_constant__ RmsNormBackwardLaunch p) {
  sum_chunks<float>(p);
}
extern "C" __global__ void __launch_bounds__(32 * kSumWarps)
    rms_norm_backward_dweight_bf16(const __grid_constant__ RmsNormBackwardLaunch p) {
  sum_chunks<bf16>(p);
}
