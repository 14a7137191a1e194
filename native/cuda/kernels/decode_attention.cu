// decode_attention without tensor cores: f32, and bf16 whose rows are not on 16 bytes or longer than 256. A block takes
// up to four query heads of one KV head over chunks of 256 keys: scores by groups of lanes that share a key, softmax by
// one warp per head, then the values, each thread with its own columns of d. K and V are read once for the four heads.
// Limited by that reading; in f32 the products, 4 per element, come close to it. Then combine, for both kinds.
// Split over keys: FlashDecoding, arXiv:2307.08691. Contract: ops/decode.h
#include "common/decode_rows.cuh"
#include "common/vec.cuh"

using namespace westwind;

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kHeads = kWarps;  // of a block
constexpr int kWarpKeys = kKeyChunk / kWarps;
constexpr int kFlight = 4;  // loads that a thread has on the way at once
constexpr int kMostWide = kVec<float>;

template <int kWide, class T>
__device__ __forceinline__ void load(float (&out)[kWide], const T* p) {
  if constexpr (kWide == kVec<T>) {
    const Vec<T> v = load_vec(p);
#pragma unroll
    for (int i = 0; i < kWide; ++i) out[i] = v.v[i];
  } else {
    static_assert(kWide == 1);
    out[0] = to_f32(*p);
  }
}

template <int kWide>
__device__ __forceinline__ void load_shared(float (&out)[kWide], const float* p) {
  if constexpr (kWide == 4) {
    const float4 v = *reinterpret_cast<const float4*>(p);
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  } else {
    out[0] = *p;
  }
}

// The smallest power of two from 4 on that covers n, at most `most`.
__device__ __forceinline__ int lanes_for(int n, int most) {
  int lanes = 4;
  while (lanes < n && lanes < most) lanes *= 2;
  return lanes;
}

// Sums of the four heads over `lanes` neighbours; lane i of them gets that of head (i / (lanes / 4)).
__device__ __forceinline__ float sum_by_head(const float (&x)[kHeads], int lane, int lanes) {
  const bool upper = lane & lanes / 2;
  float a = upper ? x[2] : x[0], b = upper ? x[3] : x[1];
  a += __shfl_xor_sync(~0u, upper ? x[0] : x[2], lanes / 2);
  b += __shfl_xor_sync(~0u, upper ? x[1] : x[3], lanes / 2);
  const bool second = lane & lanes / 4;
  float sum = second ? b : a;
  sum += __shfl_xor_sync(~0u, second ? a : b, lanes / 4);
  for (int step = lanes / 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return sum;
}

struct Shared {
  float score[kHeads][kKeyChunk + 8];  // then weights; the heads of a key on different banks
  float parts[kHeads][kThreads][kMostWide];
  ChunkStats stats[kHeads];
};

// kWide: elements in one load.
template <class T, int kWide>
__device__ __forceinline__ void decode(const DecodeLaunch& w) {
  __shared__ __align__(16) Shared x;
  extern __shared__ __align__(16) float query[];  // [kHeads, D], zero past the last head
  const DecodeAttentionParams& p = w.p;
  const int32_t D = p.D, group = p.Hq / p.Hkv, kv_head = static_cast<int32_t>(blockIdx.y) / w.head_blocks;
  const int32_t from = static_cast<int32_t>(blockIdx.y) % w.head_blocks * kHeads;
  const int32_t heads = min(group - from, kHeads), head0 = kv_head * group + from;
  const int64_t t = w.first_row + blockIdx.x;
  if (!row_is_in_cache(w, t)) return;

  const T* q = static_cast<const T*>(p.qkv) + (t * (int64_t{p.Hq} + 2 * p.Hkv) + head0) * D;
  for (int32_t i = threadIdx.x; i < kHeads * D; i += kThreads) query[i] = i < heads * D ? to_f32(q[i]) : 0.f;
  const int32_t last = p.position[t], first = oldest_key(p, last);
  const int64_t stride = int64_t{p.Hkv} * D;
  const int64_t cache = (p.slot[t] * p.length * p.Hkv + kv_head) * D;
  const T* const keys = static_cast<const T*>(p.k_cache) + cache;
  const T* const values = static_cast<const T*>(p.v_cache) + cache;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  for (int32_t chunk = first / kKeyChunk + static_cast<int32_t>(blockIdx.z); chunk <= last / kKeyChunk;
       chunk += static_cast<int32_t>(gridDim.z)) {
    const int32_t key0 = chunk * kKeyChunk;
    const int32_t begin = max(first, key0) - key0, end = min(last, key0 + kKeyChunk - 1) - key0 + 1;
    __syncthreads();  // query is there; the chunk before has been read

    // Scores: `lanes` neighbours share a key.
    const int lanes = lanes_for((D + kWide - 1) / kWide, 32), step = 32 / lanes, mine = lane % lanes;
    for (int32_t at = warp * kWarpKeys + lane / lanes; at - lane / lanes < (warp + 1) * kWarpKeys;
         at += kFlight * step) {
      float dot[kFlight][kHeads] = {};
      for (int32_t d = mine * kWide; d < D; d += lanes * kWide) {
        float k[kFlight][kWide];
#pragma unroll
        for (int f = 0; f < kFlight; ++f) {
          const int32_t key = at + f * step;
          if (key >= begin && key < end) {
            load<kWide>(k[f], keys + (key0 + key) * stride + d);
          } else {
#pragma unroll
            for (float& e : k[f]) e = 0;
          }
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          float q[kWide];
          load_shared(q, query + h * D + d);
#pragma unroll
          for (int e = 0; e < kWide; ++e)
#pragma unroll
            for (int f = 0; f < kFlight; ++f) dot[f][h] += q[e] * k[f][e];
        }
      }
#pragma unroll
      for (int f = 0; f < kFlight; ++f) {
        const int32_t key = at + f * step;
        const float sum = sum_by_head(dot[f], lane, lanes);
        if (mine % (lanes / 4) == 0 && key < kKeyChunk)
          x.score[mine / (lanes / 4)][key] = key >= begin && key < end ? sum * (p.scale * kLog2E) : -INFINITY;
      }
    }
    __syncthreads();

    // Softmax: a warp per head.
    float score[kKeyChunk / 32], maximum = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < kKeyChunk / 32; ++i) {
      score[i] = x.score[warp][lane + 32 * i];
      maximum = fmaxf(maximum, score[i]);
    }
#pragma unroll
    for (int step2 = 16; step2 > 0; step2 /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, step2));
#pragma unroll
    for (int i = 0; i < kKeyChunk / 32; ++i) {
      const float weight = weight_of(score[i], maximum);
      x.score[warp][lane + 32 * i] = weight;
      sum += weight;
    }
#pragma unroll
    for (int step2 = 16; step2 > 0; step2 /= 2) sum += __shfl_xor_sync(~0u, sum, step2);
    if (lane == 0) x.stats[warp] = {maximum, sum};
    __syncthreads();

    // Values: `across` threads side by side over d, the others over keys.
    const int across = lanes_for((D + kWide - 1) / kWide, kThreads), deep = kThreads / across;
    const int part = static_cast<int>(threadIdx.x) / across;
    for (int32_t d0 = 0; d0 < D; d0 += across * kWide) {
      const int32_t d = d0 + static_cast<int32_t>(threadIdx.x) % across * kWide;
      float out[kHeads][kWide] = {};
      if (d < D)
        for (int32_t key = begin + part; key < end; key += kFlight * deep) {
          float v[kFlight][kWide] = {};
#pragma unroll
          for (int f = 0; f < kFlight; ++f)
            if (key + f * deep < end) load<kWide>(v[f], values + (key0 + key + f * deep) * stride + d);
#pragma unroll
          for (int f = 0; f < kFlight; ++f)
            if (key + f * deep < end)
#pragma unroll
              for (int h = 0; h < kHeads; ++h)
#pragma unroll
                for (int e = 0; e < kWide; ++e) out[h][e] += x.score[h][key + f * deep] * v[f][e];
        }
#pragma unroll
      for (int h = 0; h < kHeads; ++h)
        if constexpr (kWide == 4)
          *reinterpret_cast<float4*>(x.parts[h][threadIdx.x]) = make_float4(out[h][0], out[h][1], out[h][2], out[h][3]);
        else
          x.parts[h][threadIdx.x][0] = out[h][0];
      __syncthreads();
      for (int32_t i = threadIdx.x; i < heads * across * kWide; i += kThreads) {
        const int32_t h = i / (across * kWide), column = i % (across * kWide), to = d0 + column;
        if (to >= D) continue;
        float total = 0;
        for (int a = 0; a < deep; ++a) total += x.parts[h][a * across + column / kWide][column % kWide];
        if (w.sums == nullptr)
          static_cast<T*>(p.out)[(t * p.Hq + head0 + h) * D + to] = from_f32<T>(total / x.stats[h].sum);
        else
          w.sums[partial_index(w, t, chunk, head0 + h) * D + to] = total;
      }
      __syncthreads();
    }
    if (w.sums != nullptr && threadIdx.x < heads)
      w.stats[partial_index(w, t, chunk, head0 + static_cast<int32_t>(threadIdx.x))] = x.stats[threadIdx.x];
  }
}

// Block (head, row): chunks in ascending order.
template <class T>
__device__ __forceinline__ void combine(const DecodeLaunch& w) {
  const DecodeAttentionParams& p = w.p;
  const int32_t head = static_cast<int32_t>(blockIdx.x);
  const int64_t t = w.first_row + blockIdx.y;
  if (!row_is_in_cache(w, t)) return;
  const int32_t begin = oldest_key(p, p.position[t]) / kKeyChunk, end = p.position[t] / kKeyChunk + 1;
  float max = -INFINITY;
  for (int32_t c = begin; c < end; ++c) max = fmaxf(max, w.stats[partial_index(w, t, c, head)].max);
  for (int32_t d = threadIdx.x; d < p.D; d += kThreads) {
    float sum = 0, out = 0;
#pragma unroll 4
    for (int32_t c = begin; c < end; ++c) {
      const int64_t at = partial_index(w, t, c, head);
      const float factor = weight_of(w.stats[at].max, max);
      sum += factor * w.stats[at].sum;
      out += factor * w.sums[at * p.D + d];
    }
    static_cast<T*>(p.out)[(t * p.Hq + head) * p.D + d] = from_f32<T>(out / sum);
  }
}

}  // namespace

#define KERNEL(name, ...)                                               \
  extern "C" __global__ void __launch_bounds__(kThreads)                \
      decode_attention_##name(const __grid_constant__ DecodeLaunch w) { \
    __VA_ARGS__(w);                                                     \
  }
KERNEL(f32, decode<float, kVec<float>>)
KERNEL(f32_scalar, decode<float, 1>)
KERNEL(bf16_scalar, decode<bf16, 1>)
KERNEL(f32_combine, combine<float>)
KERNEL(bf16_combine, combine<bf16>)
