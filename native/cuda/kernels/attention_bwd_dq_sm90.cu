// dQ of attention backward on Hopper. A block owns 128 queries of a head and walks over the keys that they see, with
// the structure of the forward (FlashAttention-3, arXiv:2407.08608):
//
//   P = exp(scale · Q Kᵀ − lse)   dP = dO Vᵀ   dS = P ∘ (dP − delta)   dQ = scale · dS K
//
// dS of a tile is multiplied by K beside S and dP of the next; it goes from accumulators to operands without leaving
// the registers. Limited by the tensor cores. Contract: ops/attention.h
#include "common/attention_bwd_sm90.cuh"

using namespace westwind;

namespace {

template <class S>
using Place = Layout<S, KeyTile>;

template <class S>
__device__ __forceinline__ void produce(const AttentionBackwardSm90Params& p, const AttentionTile& t, int32_t head,
                                        const Place<S>& at) {
  auto& more = *at.more;
  const bool leader = threadIdx.x == 0;
  const int32_t kv_head = p.op.Hq + head / (p.op.Hq / p.op.Hkv), T = static_cast<int32_t>(p.op.T);
  const Keys keys = keys_of(t);
  if (leader) load_own(at, p.qkv, head, p.dout, head, t.first);
  Ring<S::kStages> ring;
  for_key_tiles<kStep>(p.plan, p.op.segments, t, [&](int32_t first, bool masked) {
    barrier_wait(shared_address(&more.empty[ring.stage]), ring.parity ^ 1);
    if (leader) {
      const uint32_t full = shared_address(&more.full[ring.stage]);
      more.tiles[ring.stage] = {first, masked ? 1 : 0};
      barrier_expect(full, 2 * S::kTileBytes);
      for (int i = 0; i < 2; ++i)
        load_keys<kStep, S::kChunks>(p.qkv, keys, T, at.ring_tile(i, ring.stage), first, kv_head + i * p.op.Hkv, full);
    }
    ring.advance();
  });
  barrier_wait(shared_address(&more.empty[ring.stage]), ring.parity ^ 1);
  if (leader) {
    more.tiles[ring.stage] = {kNoTile, 0};
    barrier_arrive(shared_address(&more.full[ring.stage]));
  }
}

template <class S>
__device__ __forceinline__ void consume(const AttentionBackwardSm90Params& p, const AttentionTile* t, int32_t head,
                                        const Place<S>& at, int32_t group) {
  auto& more = *at.more;
  const int32_t first = first_query(t, group), last = last_query(t, group);
  const float scale = p.op.scale * kLog2e;
  AttentionRow rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = min(t->first + 64 * group + first_row() + 8 * r, t->end - 1);
    rows[r] = p.rows[head * p.op.T + row];
  }
  const uint32_t q = at.own_tile(0, group), dout = at.own_tile(1, group);
  Ring<S::kStages> ring, before;  // `before`: the tile whose dS is at hand
  const Turns<kGroups> turns(group);
  float dq[S::kColumns / 2] = {};
  float s[kStep / 2], dp[kStep / 2];
  uint32_t a[kStep / 16][4];

  const auto next_tile = [&] {
    barrier_wait(shared_address(&more.full[ring.stage]), ring.parity);
    return more.tiles[ring.stage];
  };
  const auto multiply = [&] {
    multiply_rows<S>(s, q, at.ring_tile(0, ring.stage));
    multiply_rows<S>(dp, dout, at.ring_tile(1, ring.stage));
    ring.advance();
  };
  const auto weigh = [&](const KeyTile& tile) {
    if (tile.masked != 0 || tile.first + kStep - 1 > first) mask_keys<kStep>(s, p.op.segments, t, group, tile);
#pragma unroll
    for (int i = 0; i < kStep / 2; ++i) s[i] = exp2_approx(fmaf(s[i], scale, rows[i / 2 % 2].lse));
  };
  const auto differentiate = [&] {
#pragma unroll
    for (int i = 0; i < kStep / 2; ++i) s[i] *= dp[i] + rows[i / 2 % 2].delta;
  };
  const auto finish_before = [&] {
    release(more.empty[before.stage]);
    before.advance();
  };

  barrier_wait(shared_address(&more.own), 0);
  KeyTile tile = next_tile();
  if (tile.first <= last) {
    fence_wgmma();
    multiply();
    wait_wgmma<1>();
    weigh(tile);
    wait_wgmma<0>();
    differentiate();
    pack(a, s);
    for (tile = next_tile(); tile.first != kNoTile && tile.first <= last; tile = next_tile()) {
      turns.await();
      fence_wgmma();
      multiply();
      add_product<S>(dq, a, at.ring_tile(0, before.stage));
      turns.pass();
      wait_wgmma<2>();
      weigh(tile);
      wait_wgmma<1>();
      differentiate();
      wait_wgmma<0>();
      finish_before();
      pack(a, s);
    }
    fence_wgmma();
    add_product<S>(dq, a, at.ring_tile(0, before.stage));
    wait_wgmma<0>();
    finish_before();
  } else {  // no queries for this warpgroup
    ring.advance();
    finish_before();
    tile = next_tile();
  }
  for (; tile.first != kNoTile; tile = next_tile()) {  // tiles that only the warpgroup behind sees
    turns.await();
    turns.pass();
    ring.advance();
    finish_before();
  }

  sync_warpgroup(group);  // the queries are read to the end
  const int32_t row = t->first + 64 * group;
  const float factor[2] = {p.op.scale, p.op.scale};
  store_rows<S::kColumns>(dq, factor, q, t->rows - 64 * group, p.op.D, gradient_row(p.op, row, head),
                          static_cast<int64_t>(p.op.Hq + 2 * p.op.Hkv) * p.op.D);
  turns.finish();
}

template <class S>
__device__ __forceinline__ void differentiate_queries(const AttentionBackwardSm90Params& p) {
  extern __shared__ char shared[];
  const int32_t index = blockIdx.x / p.op.Hq, head = blockIdx.x % p.op.Hq;
  if (index >= p.plan.counts[0]) return;
  const AttentionTile* t = p.plan.queries + index;
  const Place<S> at(shared);
  init_barriers<S>(*at.more);
  const int32_t warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 0) {
    fewer_registers<kProducerRegisters>();
    if (threadIdx.x < 32) produce<S>(p, *t, head, at);
  } else {
    more_registers<kConsumerRegisters>();
    consume<S>(p, t, head, at, warpgroup - 1);
  }
}

}  // namespace

#define WESTWIND_ATTENTION(D, stages)                                                          \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                    \
      attention_bwd_dq_bf16_sm90_d##D(const __grid_constant__ AttentionBackwardSm90Params p) { \
    differentiate_queries<Shape<D, stages>>(p);                                                \
  }
WESTWIND_ATTENTION(64, 4)
WESTWIND_ATTENTION(96, 4)
WESTWIND_ATTENTION(128, 4)
