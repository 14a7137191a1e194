// sample: one block per row. Tokens lie in one order, by weight e^((x − top) / temperature) downwards and of equals by
// id upwards; top_k and top_p each keep a beginning of it. The last token kept is found by descending through the bits
// of the logits, four at a time: each thread adds what its tokens bring (1 for top_k, their weight for top_p) to 16
// bins of its own, so that no sum depends on the order of threads. Tokens below the cut never have their weight
// computed. f64 as on the CPU. A row is read from L2 some 10 to 20 times; what limits it is one multiprocessor's
// reading of it. Contract: ops/decode.h
#include "common/fault.cuh"
#include "common/vec.cuh"
#include "params/decode.h"

using namespace westwind;

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBits = 4;
constexpr int kBins = 1 << kBits;
static_assert(kBins == kWarps, "a warp adds up a bin");

struct Shared {
  double bins[kBins][kThreads];
  double total[kBins];
  double by_warp[kWarps];
  float tops[kWarps];
  int32_t ids[kWarps];
  int32_t id;
};

// Order of floats as order of numbers; −0 is 0.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x + 0.f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// The last token kept. Tokens of less weight, and those of equal weight with a higher id, are not.
struct Cut {
  double weight;
  double floor;  // a logit below it has less weight than that, so that it need not be computed
  int32_t id;
};

template <class T>
struct Row {
  const T* logits;
  int32_t V;
  double top, temperature;

  __device__ float logit(int32_t v) const { return to_f32(logits[v]); }
  __device__ double weight(float x) const { return exp((x - top) / temperature); }
  // 0: not kept.
  __device__ double kept(int32_t v, const Cut& cut) const {
    const float x = logit(v);
    if (!(x >= cut.floor)) return 0;
    const double w = weight(x);
    return w > cut.weight || (w == cut.weight && v <= cut.id) ? w : 0;
  }
  // Tokens of warp w: begin(w) .. begin(w + 1) − 1.
  __device__ int32_t begin(int w) const { return min(V, (V + kWarps - 1) / kWarps * w); }
};

// The token at which the running sum of amount(v) over the ids first gives done(sum); else the last one with an amount.
// What the warps have in their ranges is in x.by_warp.
template <class T, class Amount, class Done>
__device__ int32_t find_in_order(const Row<T>& row, Shared& x, const Amount& amount, const Done& done) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // The first range that gets there, or the last that has anything.
  int range = 0;
  double before = 0, sum = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (x.by_warp[w] == 0) continue;
    range = w, before = sum;
    sum += x.by_warp[w];
    if (done(sum)) break;
  }
  if (warp == range) {
    int32_t last = -1;
    for (int32_t v0 = row.begin(range); v0 < row.begin(range + 1); v0 += 32) {
      const int32_t v = v0 + lane;
      const double mine = v < row.begin(range + 1) ? amount(v) : 0;
      double running = mine;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const double lower = __shfl_up_sync(~0u, running, step);
        if (lane >= step) running += lower;
      }
      const unsigned some = __ballot_sync(~0u, mine != 0);
      const unsigned reached = __ballot_sync(~0u, mine != 0 && done(before + running));
      if (some != 0) last = v0 + 31 - __clz(some);
      if (reached != 0) last = v0 + __ffs(reached) - 1;
      if (reached != 0) break;
      before += __shfl_sync(~0u, running, 31);
    }
    if (lane == 0) x.id = last;
  }
  __syncthreads();
  const int32_t id = x.id;
  __syncthreads();
  return id;
}

// Sums of amount(v) over each warp's range, into x.by_warp; returns the sum of all.
template <class T, class Amount>
__device__ double sum_ranges(const Row<T>& row, Shared& x, const Amount& amount) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  double sum = 0;
  for (int32_t v = row.begin(warp) + lane; v < row.begin(warp + 1); v += 32) sum += amount(v);
  sum = warp_sum(sum);
  if (lane == 0) x.by_warp[warp] = sum;
  __syncthreads();
  double all = 0;
  for (int w = 0; w < kWarps; ++w) all += x.by_warp[w];
  return all;
}

// The shortest beginning of the order, of the tokens that `cut` keeps, with at least `goal`: tokens, or with kMass that
// share of the mass.
template <bool kMass, class T>
__device__ Cut shorten(const Row<T>& row, Shared& x, const Cut& cut, double goal) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t prefix = 0;
  double above = 0;                                            // of larger logits than those that begin with `prefix`
  constexpr int kLast = 32 - 8 * static_cast<int>(sizeof(T));  // the bits of a bf16 are the upper half
  for (int shift = 32 - kBits; shift >= kLast; shift -= kBits) {
    for (int b = 0; b < kBins; ++b) x.bins[b][threadIdx.x] = 0;
    for (int32_t v = threadIdx.x; v < row.V; v += kThreads) {
      const uint32_t key = key_of(row.logit(v));
      if ((uint64_t{key} ^ prefix) >> (shift + kBits) != 0) continue;
      x.bins[key >> shift & (kBins - 1)][threadIdx.x] += kMass ? row.kept(v, cut) : 1.0;
    }
    __syncthreads();
    double sum = 0;
    for (int i = lane; i < kThreads; i += 32) sum += x.bins[warp][i];
    sum = warp_sum(sum);
    if (lane == 0) x.total[warp] = sum;
    __syncthreads();
    if (kMass && shift == 32 - kBits) {
      double all = 0;
      for (int b = kBins - 1; b >= 0; --b) all += x.total[b];
      goal *= all;
    }
    // The bin that reaches the goal; where rounding keeps all from it, the last that has anything.
    int bin = 0;
    double passed = 0, sum_to = above;
    for (int b = kBins - 1; b >= 0; --b) {
      if (x.total[b] == 0) continue;
      bin = b, passed = sum_to;
      sum_to += x.total[b];
      if (sum_to >= goal) break;
    }
    above = passed;
    prefix |= static_cast<uint32_t>(bin) << shift;
    __syncthreads();
  }

  if (kLast > 0 && prefix < 0x80000000u) prefix |= (uint32_t{1} << kLast) - 1;  // a negative number, its bits inverted

  Cut out;
  const float logit = logit_of(prefix);
  out.weight = row.weight(logit);
  // Weights of logits further below differ in more than their rounding; above it, in f64, logits may share a weight.
  const double slack = 1e-9 * row.temperature + 1e-12 * (row.top - logit);
  out.floor = logit == -INFINITY ? -INFINITY : logit - slack;
  const auto equals = [&](int32_t v) {
    const float l = row.logit(v);
    return l >= out.floor && l <= logit + slack && row.weight(l) == out.weight && (!kMass || row.kept(v, cut) != 0)
               ? 1.0
               : 0.0;
  };
  const double larger = sum_ranges(row, x, [&](int32_t v) { return row.logit(v) > logit ? equals(v) : 0.0; });
  __syncthreads();
  const double unit = kMass ? out.weight : 1.0;
  above -= larger * unit;
  sum_ranges(row, x, equals);
  out.id = find_in_order(row, x, equals, [&](double count) { return above + count * unit >= goal; });
  return out;
}

template <class T>
__device__ int32_t choose(const SampleLaunch& w, Shared& x) {
  const SampleParams& p = w.p;
  const int64_t b = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Row<T> row{static_cast<const T*>(p.logits) + b * p.V, static_cast<int32_t>(p.V), 0, p.temperature};

  float top = -INFINITY;
  int32_t best = INT32_MAX;
  bool wrong = false;
  for (int32_t v = threadIdx.x; v < row.V; v += kThreads) {
    const float l = row.logit(v);
    wrong |= !(l < INFINITY);
    if (l > top) top = l, best = v;
  }
  const auto better = [&](float other, int32_t id) {
    if (other > top || (other == top && id < best)) top = other, best = id;
  };
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(~0u, top, lanes);
    better(other, __shfl_xor_sync(~0u, best, lanes));
  }
  if (lane == 0) x.tops[warp] = top, x.ids[warp] = best;
  wrong = __syncthreads_or(wrong);
  for (int i = 0; i < kWarps; ++i) better(x.tops[i], x.ids[i]);
  if (wrong || top == -INFINITY) {
    if (threadIdx.x == 0) report(w.fault, w.logits_fault, static_cast<uint64_t>(b), 0);
    return 0;
  }
  if (p.temperature == 0) return best;

  row.top = top;
  Cut cut{-1, -INFINITY, INT32_MAX};
  if (p.top_k > 0 && p.top_k < row.V) cut = shorten<false>(row, x, cut, p.top_k);
  if (p.top_p < 1) cut = shorten<true>(row, x, cut, p.top_p);
  const auto kept = [&](int32_t v) { return row.kept(v, cut); };
  const double mass = sum_ranges(row, x, kept), goal = p.uniform[b] * mass;
  return find_in_order(row, x, kept, [&](double sum) { return sum > goal; });
}

template <class T>
__device__ __forceinline__ void sample(const SampleLaunch& w) {
  extern __shared__ __align__(16) unsigned char memory[];
  const float u = w.p.uniform[blockIdx.x];
  if (!(u >= 0 && u < 1)) {
    if (threadIdx.x == 0)
      report(w.fault, w.uniform_fault, uint64_t{blockIdx.x}, static_cast<int32_t>(__float_as_uint(u)));
    return;
  }
  const int32_t id = choose<T>(w, *reinterpret_cast<Shared*>(memory));
  if (threadIdx.x == 0) w.p.out[blockIdx.x] = id;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) sample_f32(const __grid_constant__ SampleLaunch w) {
  sample<float>(w);
}
extern "C" __global__ void __launch_bounds__(kThreads, 1) sample_bf16(const __grid_constant__ SampleLaunch w) {
  sample<bf16>(w);
}
