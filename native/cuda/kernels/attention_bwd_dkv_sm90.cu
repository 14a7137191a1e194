// dK and dV of attention backward on Hopper. A block owns 128 keys of a KV head and walks over the queries that see
// them: for each head of the group those of the keys' own segment, then those of the segments that have it as prefix.
// All is transposed, so that P and dS go from accumulators to operands without leaving the registers:
//
//   Pᵀ = exp(scale · K Qᵀ − lse)   dV = Pᵀ dO   dPᵀ = V dOᵀ   dSᵀ = Pᵀ ∘ (dPᵀ − delta)   dK = scale · dSᵀ Q
//
// One block makes the whole sum, in one order: no atomics. Limited by the tensor cores. Contract: ops/attention.h
#include "common/attention_bwd_sm90.cuh"

using namespace westwind;

namespace {

// What a tile of queries needs beside its data.
struct QueryTile {
  // Number of its first query minus that of the block's first key; kFar: it is after all of them; −1: there is no tile.
  int32_t diagonal;
  int32_t masked;         // some query may have some key out of its window
  float lse[kStep];       // of AttentionRow; −∞ past the end of the segment, so that the weights are 0
  float delta[kStep];     // of AttentionRow
  int32_t oldest[kStep];  // position − window: at or below it the query sees nothing
};
constexpr int32_t kFar = 1 << 30;

template <class S>
using Place = Layout<S, QueryTile>;

// One warp. Gives the tiles of queries that see some key of the tile: by head, by segment, ascending.
template <class S>
__device__ __forceinline__ void produce(const AttentionBackwardSm90Params& p, const AttentionTile& t, int32_t kv_head,
                                        const Place<S>& at) {
  auto& more = *at.more;
  const Segments& segments = p.op.segments;
  const int32_t lane = threadIdx.x, T = static_cast<int32_t>(p.op.T), group = p.op.Hq / p.op.Hkv;
  const bool leader = lane == 0, window = segments.window > 0;
  if (leader) load_own(at, p.qkv, p.op.Hq + kv_head, p.qkv, p.op.Hq + p.op.Hkv + kv_head, t.first);
  const PositionRange keys = window ? exact_range(segments.positions, t.first, t.rows) : PositionRange{0, 0};
  const int32_t children = p.plan.child_first[t.segment], children_end = p.plan.child_first[t.segment + 1];
  Ring<S::kStages> ring;

  const auto emit = [&](int32_t head, int32_t row, int32_t n, int32_t diagonal, bool masked) {
    const int64_t stats = head * p.op.T + row;
    AttentionRow rows[2];
    int32_t oldest[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int32_t mine = lane + 32 * i;
      rows[i] = mine < n ? p.rows[stats + mine] : AttentionRow{-INFINITY, 0.f};
      oldest[i] = masked && mine < n ? segments.positions[row + mine] - segments.window : 0;
    }
    barrier_wait(shared_address(&more.empty[ring.stage]), ring.parity ^ 1);
    QueryTile& tile = more.tiles[ring.stage];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      tile.lse[lane + 32 * i] = rows[i].lse;
      tile.delta[lane + 32 * i] = rows[i].delta;
      tile.oldest[lane + 32 * i] = oldest[i];
    }
    __syncwarp();
    if (leader) {
      tile.diagonal = diagonal, tile.masked = masked ? 1 : 0;
      const uint32_t full = shared_address(&more.full[ring.stage]);
      barrier_expect(full, 2 * S::kTileBytes);
      for (int i = 0; i < 2; ++i) {
        const RowBoxes& boxes = i == 0 ? p.qkv : p.dout;
        load_run<kStep, S::kChunks>(boxes, at.ring_tile(i, ring.stage), 0, n, row, head, full);
        load_run<kStep, S::kChunks>(boxes, at.ring_tile(i, ring.stage), n, kStep - n, T, head, full);
      }
    }
    ring.advance();
  };

  for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int32_t c = children - 1; c < children_end; ++c) {
      const bool own = c < children;
      const int32_t segment = own ? t.segment : p.plan.children[c];
      const int32_t begin = own ? t.first : segments.start[segment], end = segments.start[segment + 1];
      for (int32_t base = begin; base < end; base += 32 * kStep) {
        const int32_t mine = base + lane * kStep;
        bool seen = mine < end, masked = false;
        if (window && seen) {
          const PositionRange range = range_of_rows(p.plan.ranges, mine, min(kStep, end - mine));
          seen = range.low - keys.high < segments.window;
          masked = range.high - keys.low >= segments.window;
        }
        const uint32_t masks = __ballot_sync(~0u, masked);
        for (uint32_t left = __ballot_sync(~0u, seen); left != 0; left &= left - 1) {
          const int32_t i = __ffs(left) - 1, row = base + i * kStep;
          emit(head, row, min(kStep, end - row), own ? row - begin : kFar, (masks >> i & 1) != 0);
        }
      }
    }
  barrier_wait(shared_address(&more.empty[ring.stage]), ring.parity ^ 1);
  if (leader) {
    more.tiles[ring.stage].diagonal = -1;
    barrier_arrive(shared_address(&more.full[ring.stage]));
  }
}

// Scores [64 keys, kStep queries] that the query does not see become −∞.
__device__ __forceinline__ void mask_queries(float (&s)[kStep / 2], const QueryTile& tile, const Segments& segments,
                                             const AttentionTile* t, int32_t group) {
  const int32_t column = 2 * (threadIdx.x % 4), key = 64 * group + first_row();
  const int32_t hidden = key - tile.diagonal - column;  // queries of the tile before this one do not see the key
#pragma unroll
  for (int i = 0; i < kStep / 2; ++i)
    if (i / 4 * 8 + i % 2 < hidden + i / 2 % 2 * 8) s[i] = -INFINITY;
  if (tile.masked == 0) return;
  const int32_t position[2] = {segments.positions[min(t->first + key, t->end - 1)],
                               segments.positions[min(t->first + key + 8, t->end - 1)]};
#pragma unroll
  for (int i = 0; i < kStep / 2; ++i)
    if (position[i / 2 % 2] <= tile.oldest[column + i / 4 * 8 + i % 2]) s[i] = -INFINITY;
}

template <class S>
__device__ __forceinline__ void consume(const AttentionBackwardSm90Params& p, const AttentionTile* t, int32_t kv_head,
                                        const Place<S>& at, int32_t group) {
  auto& more = *at.more;
  const bool idle = t->rows <= 64 * group;  // no keys for this warpgroup
  const float scale = p.op.scale * kLog2e;
  const uint32_t k = at.own_tile(0, group), v = at.own_tile(1, group);
  const int32_t column = 2 * (threadIdx.x % 4);
  float dk[S::kColumns / 2] = {}, dv[S::kColumns / 2] = {};
  barrier_wait(shared_address(&more.own), 0);
  for (Ring<S::kStages> ring;; ring.advance()) {
    barrier_wait(shared_address(&more.full[ring.stage]), ring.parity);
    const QueryTile& tile = more.tiles[ring.stage];
    const int32_t diagonal = tile.diagonal;
    if (diagonal < 0) break;
    if (!idle && diagonal + kStep > 64 * group) {
      const uint32_t q = at.ring_tile(0, ring.stage), dout = at.ring_tile(1, ring.stage);
      float s[kStep / 2], dp[kStep / 2];
      uint32_t a[kStep / 16][4];
      fence_wgmma();
      multiply_rows<S>(s, k, q);
      multiply_rows<S>(dp, v, dout);
      wait_wgmma<1>();
      if (tile.masked != 0 || diagonal < 64 * group + 63) mask_queries(s, tile, p.op.segments, t, group);
#pragma unroll
      for (int i = 0; i < kStep / 2; i += 4) {
        const float2 lse = *reinterpret_cast<const float2*>(&tile.lse[column + 2 * i]);
        s[i] = exp2_approx(fmaf(s[i], scale, lse.x));
        s[i + 1] = exp2_approx(fmaf(s[i + 1], scale, lse.y));
        s[i + 2] = exp2_approx(fmaf(s[i + 2], scale, lse.x));
        s[i + 3] = exp2_approx(fmaf(s[i + 3], scale, lse.y));
      }
      pack(a, s);
      fence_wgmma();
      add_product<S>(dv, a, dout);
      wait_wgmma<1>();
#pragma unroll
      for (int i = 0; i < kStep / 2; i += 4) {
        const float2 delta = *reinterpret_cast<const float2*>(&tile.delta[column + 2 * i]);
        s[i] *= dp[i] + delta.x;
        s[i + 1] *= dp[i + 1] + delta.y;
        s[i + 2] *= dp[i + 2] + delta.x;
        s[i + 3] *= dp[i + 3] + delta.y;
      }
      uint32_t b[kStep / 16][4];
      pack(b, s);
      fence_wgmma();
      add_product<S>(dk, b, q);
      wait_wgmma<0>();
    }
    release(more.empty[ring.stage]);
  }

  sync_warpgroup(group);  // the keys are read to the end
  const int32_t row = t->first + 64 * group, rows = t->rows - 64 * group, head = p.op.Hq + kv_head;
  const int64_t stride = static_cast<int64_t>(p.op.Hq + 2 * p.op.Hkv) * p.op.D;
  const float one[2] = {1.f, 1.f}, factor[2] = {p.op.scale, p.op.scale};
  store_rows<S::kColumns>(dk, factor, k, rows, p.op.D, gradient_row(p.op, row, head), stride);
  store_rows<S::kColumns>(dv, one, v, rows, p.op.D, gradient_row(p.op, row, head + p.op.Hkv), stride);
}

template <class S>
__device__ __forceinline__ void differentiate_keys(const AttentionBackwardSm90Params& p) {
  extern __shared__ char shared[];
  const int32_t index = blockIdx.x / p.op.Hkv, kv_head = blockIdx.x % p.op.Hkv;
  if (index >= p.plan.counts[1]) return;
  const AttentionTile* t = p.plan.keys + index;
  const Place<S> at(shared);
  init_barriers<S>(*at.more);
  const int32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 0) {
    fewer_registers<kProducerRegisters>();
    if (threadIdx.x < 32) produce<S>(p, *t, kv_head, at);
  } else {
    more_registers<kConsumerRegisters>();
    consume<S>(p, t, kv_head, at, warpgroup - 1);
  }
}

}  // namespace

#define WESTWIND_ATTENTION(D, stages)                                                           \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                     \
      attention_bwd_dkv_bf16_sm90_d##D(const __grid_constant__ AttentionBackwardSm90Params p) { \
    differentiate_keys<Shape<D, stages>>(p);                                                    \
  }
WESTWIND_ATTENTION(64, 4)
WESTWIND_ATTENTION(96, 4)
WESTWIND_ATTENTION(128, 4)
