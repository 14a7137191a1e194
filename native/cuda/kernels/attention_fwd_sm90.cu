// attention forward on Hopper (FlashAttention-3, arXiv:2407.08608). A producer warp keeps a ring of key and value tiles
// filled by TMA; each consumer warpgroup owns 64 query rows. S = Q Kᵀ of a tile runs on the tensor cores together with
// O += P V of the tile before, while the other warpgroups do softmax (Turns). P never leaves the registers. f32 softmax
// to base 2. Limited by the tensor cores (D >= 128), by exponentials (D = 64). Contract: ops/attention.h
//
// Tiles of keys are cut in logical order (prefix, then own rows), wherever the rows lie: a row's bits depend on nothing
// but its own keys.
#include "common/attention_sm90.cuh"
#include "dtype.h"

using namespace westwind;

namespace {

template <int kD_, int kGroups_, int kBlockN_, int kStages_>
struct Shape {
  static constexpr int kD = kD_;            // columns of Q and K that are multiplied; D of the tensors may be less
  static constexpr int kGroups = kGroups_;  // consumer warpgroups
  static constexpr int kBlockN = kBlockN_;  // keys of a tile
  static constexpr int kStages = kStages_;
  static constexpr int kChunks = (kD + kBoxColumns - 1) / kBoxColumns;
  static constexpr int kColumns = kChunks * kBoxColumns;  // of V and O: wgmma takes whole swizzled rows
  static constexpr int kThreads = (1 + kGroups) * kWarpgroup;
  static constexpr int kQueryBytes = 64 * kChunks * kRowBytes;  // of a warpgroup
  static constexpr int kTileBytes = kBlockN * kChunks * kRowBytes;
  // Of each thread: 65536 registers for all of them.
  static constexpr int kConsumerRegisters = kGroups == 2 ? 224 : 152;
  static constexpr int kProducerRegisters = 56;
};

struct Barriers {
  uint64_t query;
  uint64_t full_k[4], empty_k[4], full_v[4], empty_v[4];
};

struct Shared {
  Barriers barriers;
  KeyTile info[4];
};

template <class S>
struct Layout {
  uint32_t query, keys, values;
  Shared* more;
  __device__ __forceinline__ explicit Layout(char* shared) {
    const uint32_t base = shared_address(shared), aligned = (base + 1023) & ~1023u;
    query = aligned;
    keys = query + S::kGroups * S::kQueryBytes;
    values = keys + S::kStages * S::kTileBytes;
    more = reinterpret_cast<Shared*>(shared + (aligned - base) + S::kGroups * S::kQueryBytes +
                                     2 * S::kStages * S::kTileBytes);
  }
};

// One warp. Gives key tiles that some query of the tile sees, in ascending order.
template <class S>
__device__ __forceinline__ void produce(const AttentionForwardSm90Params& p, const AttentionTile& t, int32_t head,
                                        const Layout<S>& at) {
  Barriers& barriers = at.more->barriers;
  const bool leader = threadIdx.x == 0;
  const int32_t kv_head = p.op.Hq + head / (p.op.Hq / p.op.Hkv), T = static_cast<int32_t>(p.op.T);
  const Keys keys = keys_of(t);
  Ring<S::kStages> k, v;

  const auto load_values = [&](int32_t first) {
    barrier_wait(shared_address(&barriers.empty_v[v.stage]), v.parity ^ 1);
    if (leader) {
      const uint32_t full = shared_address(&barriers.full_v[v.stage]);
      barrier_expect(full, S::kTileBytes);
      load_keys<S::kBlockN, S::kChunks>(p.qkv, keys, T, at.values + v.stage * S::kTileBytes, first, kv_head + p.op.Hkv,
                                        full);
    }
    v.advance();
  };

  if (leader) {
    const uint32_t barrier = shared_address(&barriers.query);
    barrier_expect(barrier, S::kGroups * S::kQueryBytes);
    for (int g = 0; g < S::kGroups; ++g)
      load_run<64, S::kChunks>(p.qkv, at.query + g * S::kQueryBytes, 0, 64, t.first + 64 * g, head, barrier);
  }
  int32_t before = kNoTile;
  for_key_tiles<S::kBlockN>(p.plan, p.op.segments, t, [&](int32_t first, bool masked) {
    barrier_wait(shared_address(&barriers.empty_k[k.stage]), k.parity ^ 1);
    if (leader) {
      if (p.op.segments.window > 0) at.more->info[k.stage] = {first, masked ? 1 : 0};
      const uint32_t full = shared_address(&barriers.full_k[k.stage]);
      barrier_expect(full, S::kTileBytes);
      load_keys<S::kBlockN, S::kChunks>(p.qkv, keys, T, at.keys + k.stage * S::kTileBytes, first, kv_head, full);
    }
    k.advance();
    if (before != kNoTile) load_values(before);
    before = first;
  });
  load_values(before);
  barrier_wait(shared_address(&barriers.empty_k[k.stage]), k.parity ^ 1);
  if (leader) {
    if (p.op.segments.window > 0) at.more->info[k.stage] = {kNoTile, 0};
    barrier_arrive(shared_address(&barriers.full_k[k.stage]));
  }
}

// A row's origin, from which its weights are counted, is raised to its maximum only when that is higher by so much (to
// base 2): weights are at most 2^8, which costs no precision, and most of the time the sums need not be scaled.
constexpr float kSlack = 8.f, kNothing = -3e38f;

// Online softmax (arXiv:1805.02867) of the two rows of which each thread holds a quarter; sums stay apart by thread
// until the end.
struct Softmax {
  float origin[2] = {kNothing,
                     kNothing};  // of the scores to base 2; below all of them: nothing seen yet, and −∞ weighs 0
  float sum[2] = {0.f, 0.f};

  // Scores to weights; earlier sums are to be multiplied by `decay`, if true comes back (in all lanes or none).
  template <int N>
  __device__ __forceinline__ bool fold(float (&s)[N / 2], float scale, float (&decay)[2]) {
    float most[2][2] = {{s[0], s[1]}, {s[2], s[3]}};
#pragma unroll
    for (int i = 4; i < N / 2; ++i) most[i / 2 % 2][i % 2] = fmaxf(most[i / 2 % 2][i % 2], s[i]);
    float top[2];
    bool above[2];
    decay[0] = decay[1] = 1.f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = fmaxf(most[r][0], most[r][1]);
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      top[r] = fmaxf(x, __shfl_xor_sync(~0u, x, 2)) * scale;
      above[r] = top[r] - origin[r] > kSlack;
    }
    const bool raised = __any_sync(~0u, above[0] || above[1]);
    if (raised) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        decay[r] = above[r] ? exp2_approx(origin[r] - top[r]) : 1.f;
        origin[r] = above[r] ? top[r] : origin[r];
        sum[r] *= decay[r];
      }
    }
    float part[2][2] = {};
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      s[i] = exp2_approx(fmaf(s[i], scale, -origin[i / 2 % 2]));
      part[i / 2 % 2][i % 2] += s[i];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] += part[r][0] + part[r][1];
    return raised;
  }
};

template <class S>
__device__ __forceinline__ void consume(const AttentionForwardSm90Params& p, const AttentionTile* t, int32_t head,
                                        const Layout<S>& at, int32_t group) {
  constexpr int N = S::kBlockN;
  Barriers& barriers = at.more->barriers;
  const int32_t lane = threadIdx.x % 32;
  const int32_t first = first_query(t, group), last = last_query(t, group);
  const float scale = p.op.scale * kLog2e;
  const uint64_t q = wgmma_descriptor(wgmma_layout<Swizzle::k128>(), at.query + group * S::kQueryBytes);
  const uint64_t k0 = wgmma_descriptor(wgmma_layout<Swizzle::k128>(), at.keys);
  const uint64_t v0 = wgmma_descriptor(wgmma_layout<Swizzle::k128>(N * kRowBytes), at.values);
  Ring<S::kStages> k;
  const Turns<S::kGroups> turns(group);
  Softmax softmax;
  float o[S::kColumns / 2] = {};
  float s[N / 2];
  uint32_t weights[N / 16][4];

  const auto release = [&](uint64_t& barrier) {
    if (lane == 0) barrier_arrive(shared_address(&barrier));
  };
  // Without a window no tile is left out: which comes next needs no word of the producer.
  KeyTile tile{-N, 0};
  const auto next_tile = [&] {
    barrier_wait(shared_address(&barriers.full_k[k.stage]), k.parity);
    tile.first += N;
    if (p.op.segments.window > 0) tile = at.more->info[k.stage];
  };
  const auto multiply_keys = [&] {
    const uint64_t b = k0 + k.stage * (S::kTileBytes >> 4);
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i)
      wgmma<N, false, false>(s, q + ((i / 4 * 64 * kRowBytes + i % 4 * 32) >> 4),
                             b + ((i / 4 * N * kRowBytes + i % 4 * 32) >> 4), i > 0);
    commit_wgmma();
  };
  const auto multiply_values = [&](uint32_t stage) {
    const uint64_t b = v0 + stage * (S::kTileBytes >> 4);
#pragma unroll
    for (int i = 0; i < N / 16; ++i) wgmma<S::kColumns, true>(o, weights[i], b + (i * 16 * kRowBytes >> 4), true);
    commit_wgmma();
  };
  float decay[2];
  const auto fold = [&] {
    if (tile.masked != 0 || tile.first + N - 1 > first) mask_keys<N>(s, p.op.segments, t, group, tile);
    return softmax.fold<N>(s, scale, decay);
  };
  const auto pack_weights = [&] {
#pragma unroll
    for (int i = 0; i < N / 4; ++i) weights[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
  };

  const auto skip = [&] {
    release(barriers.empty_k[k.stage]);
    barrier_wait(shared_address(&barriers.full_v[k.stage]), k.parity);
    release(barriers.empty_v[k.stage]);
    k.advance();
  };

  barrier_wait(shared_address(&barriers.query), 0);
  next_tile();
  if (tile.first <= last) {
    fence_wgmma();
    multiply_keys();
    wait_wgmma<0>();
    release(barriers.empty_k[k.stage]);
    fold();
    pack_weights();
    Ring<S::kStages> v = k;  // values are a tile behind
    k.advance();
    for (next_tile(); tile.first <= last; next_tile()) {
      turns.await();
      fence_wgmma();
      multiply_keys();
      barrier_wait(shared_address(&barriers.full_v[v.stage]), v.parity);
      fence_wgmma();
      multiply_values(v.stage);
      turns.pass();
      wait_wgmma<1>();
      release(barriers.empty_k[k.stage]);
      const bool raised = fold();
      wait_wgmma<0>();
      release(barriers.empty_v[v.stage]);
      v = k;
      k.advance();
      if (raised) {
#pragma unroll
        for (int i = 0; i < S::kColumns / 2; ++i) o[i] *= decay[i / 2 % 2];
      }
      pack_weights();
    }
    barrier_wait(shared_address(&barriers.full_v[v.stage]), v.parity);
    fence_wgmma();
    multiply_values(v.stage);
    wait_wgmma<0>();
    release(barriers.empty_v[v.stage]);
  } else {  // no queries for this warpgroup
    skip();
    next_tile();
  }
  // Tiles that only the warpgroups behind see.
  for (const int32_t keys = key_count(*t); tile.first < keys; next_tile()) {
    turns.await();
    turns.pass();
    skip();
  }

  const int32_t row = t->first + 64 * group, rows = t->rows - 64 * group;  // rows: of this warpgroup, if above 0
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = softmax.sum[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    factor[r] = 1.f / sum;
    const int32_t i = first_row() + 8 * r;
    if (lane % 4 == 0 && i < rows) p.op.lse[head * p.op.T + row + i] = fmaf(softmax.origin[r], kLn2, __logf(sum));
  }
  sync_warpgroup(group);  // the queries are read to the end
  bf16* out = static_cast<bf16*>(p.op.out) + (static_cast<int64_t>(row) * p.op.Hq + head) * p.op.D;
  store_rows<S::kColumns>(o, factor, at.query + group * S::kQueryBytes, rows, p.op.D, out,
                          static_cast<int64_t>(p.op.Hq) * p.op.D);
  turns.finish();
}

template <class S>
__device__ __forceinline__ void attend(const AttentionForwardSm90Params& p) {
  extern __shared__ char shared[];
  const int32_t index = blockIdx.x / p.op.Hq, head = blockIdx.x % p.op.Hq;
  if (index >= p.plan.counts[0]) return;
  const AttentionTile* t = p.plan.queries + index;
  const Layout<S> at(shared);
  if (threadIdx.x == 0) {
    Barriers& barriers = at.more->barriers;
    barrier_init(shared_address(&barriers.query), 1);
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(shared_address(&barriers.full_k[i]), 1);
      barrier_init(shared_address(&barriers.full_v[i]), 1);
      barrier_init(shared_address(&barriers.empty_k[i]), 4 * S::kGroups);  // a lane of each consumer warp
      barrier_init(shared_address(&barriers.empty_v[i]), 4 * S::kGroups);
    }
    fence_barrier_init();
  }
  __syncthreads();
  const int32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 0) {
    fewer_registers<S::kProducerRegisters>();
    if (threadIdx.x < 32) produce<S>(p, *t, head, at);
  } else {
    more_registers<S::kConsumerRegisters>();
    consume<S>(p, t, head, at, warpgroup - 1);
  }
}

}  // namespace

#define WESTWIND_ATTENTION(D, groups, keys, stages)                                         \
  extern "C" __global__ void __launch_bounds__(Shape<D, groups, keys, stages>::kThreads, 1) \
      attention_fwd_bf16_sm90_d##D(const __grid_constant__ AttentionForwardSm90Params p) {  \
    attend<Shape<D, groups, keys, stages>>(p);                                              \
  }
WESTWIND_ATTENTION(64, 3, 96, 4)
WESTWIND_ATTENTION(96, 2, 128, 2)
WESTWIND_ATTENTION(128, 2, 128, 2)
WESTWIND_ATTENTION(256, 2, 64, 2)
