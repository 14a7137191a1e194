// dQ of attention_backward on tensor cores: a block has a tile of queries of one head and goes over the keys it sees,
// as in forward, and makes the weights again from lse. Three products: S = Q Kᵀ, dP = dO Vᵀ, dQ += dS K with
// dS = P ∘ (dP − delta) rounded to bf16 (arXiv:2307.08691). Limited by the tensor cores: 6·D FLOPs for each query head
// and visible key. Contract: ops/attention.h
#include <math.h>

#include "common/attention_tile.cuh"

using namespace westwind;
using namespace westwind::attention;

namespace {

template <int kD>
__device__ __forceinline__ void backward_q(const AttentionBackwardArgs& args) {
  constexpr AttentionShape kShape = kAttentionDqShape<kD>;
  constexpr int kRows = kShape.rows, kStep = kShape.step;
  constexpr int kRowTiles = kRows / (16 * kWarps), kWarpRows = 16 * kRowTiles;
  constexpr int kInRegisters = kAttentionDqInRegisters<kD>;  // Q, then dO
  constexpr uint32_t kStepBytes = 2 * kStep * kD * 2;        // K and V
  constexpr uint32_t kOwnBytes = kRows * kD * 2;             // Q, and dO
  static_assert(kRows % kWarpRows == 0, "whole warps");
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionBackwardParams& p = args.op;
  const int head = static_cast<int>(blockIdx.x % p.Hq), index = static_cast<int>(blockIdx.x / p.Hq);
  if (index >= args.plan.counts[0]) return;
  const AttentionTile tile = args.plan.queries[index];
  const KeySteps<kStep> keys(tile, args.plan, p.segments);

  const int head_bytes = 2 * p.D, out_row_bytes = p.Hq * head_bytes, row_bytes = out_row_bytes + 2 * p.Hkv * head_bytes;
  const int head_at = head * head_bytes;
  const HeadRows k{p.qkv, (p.Hq + head / (p.Hq / p.Hkv)) * head_bytes, row_bytes};
  const uint32_t dout_tile = shared_address(memory), q_tile = dout_tile + kOwnBytes;
  const uint32_t steps = dout_tile + (2 - kInRegisters) * kOwnBytes;
  const auto copy_step = [&](int step, int slot) {
    keys.template copy<kD>(steps + slot * kStepBytes, k, p.Hkv * head_bytes, step, p.D);
    cp_async_commit();
  };

  copy_rows<kD, kRows>(q_tile, {p.qkv, head_at, row_bytes}, tile.first, tile.rows, p.D);
  copy_rows<kD, kRows>(dout_tile, {p.dout, head_at, out_row_bytes}, tile.first, tile.rows, p.D);
  cp_async_commit();
  if constexpr (kInRegisters > 0) {
    cp_async_wait<0>();
    __syncthreads();
  }
  const int warp_row = warp_id() * kWarpRows;
  const Operands<kD> own_rows(Operands<kD>::lane_address(dout_tile, warp_row));
  const RowOperands<kD, kRowTiles, (kInRegisters > 0), kOwnBytes> q_rows(own_rows);
  const RowOperands<kD, kRowTiles, (kInRegisters > 1)> dout_rows(own_rows);
  if constexpr (kInRegisters > 0) __syncthreads();  // the first step may take their place
  int now = keys.visible(0);
  copy_step(now, 0);

  const int first_seen = tile.prefix_rows + tile.first - tile.start + warp_row + 1;
  const int last_seen = first_seen + min(kWarpRows, tile.rows - warp_row) - 1;
  const float factor = p.scale * kLog2E;
  AttentionRow rows[kRowTiles][2];  // rows g and g + 8
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = min(warp_row + 16 * r + 8 * half + lane_id() / 4, tile.rows - 1);
      rows[r][half] = args.rows[head * p.T + tile.first + row];
    }
  const uint32_t lane_steps = Operands<kD>::lane_address(steps, 0);
  float dq[kRowTiles][kD / 8][4] = {};

  for (int slot = 0; now < keys.count(); slot ^= 1) {
    const int next = keys.visible(now + 1);
    cp_async_wait<0>();
    __syncthreads();  // the step is here, and the slot of the one before is free
    if (next < keys.count()) copy_step(next, slot ^ 1);
    const int step = now;
    now = next;
    if (warp_row >= tile.rows || step * kStep >= last_seen) continue;  // nothing that this warp's rows see

    const Operands<kD> kv(lane_steps + slot * kStepBytes);
    float scores[kRowTiles][kStep / 8][4], dweights[kRowTiles][kStep / 8][4];
    multiply_rows<0>(scores, q_rows, kv, from_zero);
    multiply_rows<kStepBytes / 2>(dweights, dout_rows, kv, [&](int r, int) {
      return float4{rows[r][0].delta, rows[r][0].delta, rows[r][1].delta, rows[r][1].delta};
    });
    const bool by_window = keys.window_cuts(step);
    if ((step + 1) * kStep > first_seen || by_window)
      hide_keys<kStep, kRowTiles>(scores, keys, p.segments, step, first_seen, tile.first + warp_row,
                                  tile.first + tile.rows - 1, by_window, -INFINITY);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          scores[r][j][e] = exp2_fast(fmaf(scores[r][j][e], factor, rows[r][e / 2].lse)) * dweights[r][j][e];
    add_product<0>(dq, scores, kv);
  }

  __syncthreads();  // the last steps have been read: their place takes the result
  if (warp_row >= tile.rows) return;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const int first = warp_row + 16 * r;
    char* out = static_cast<char*>(p.dqkv) + int64_t{tile.first + first} * row_bytes + head_at;
    write_rows<kD>(
        dq[r], dout_tile, first, p.D, [&](int) { return p.scale; },
        [&](int i) { return first + i < tile.rows ? reinterpret_cast<bf16*>(out + int64_t{i} * row_bytes) : nullptr; });
  }
}

}  // namespace

#define WESTWIND_KERNEL(D)                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads, D <= 16 ? 3 : 2)              \
      attention_bwd_dq_bf16_d##D(const __grid_constant__ AttentionBackwardArgs args) { \
    backward_q<D>(args);                                                               \
  }
WESTWIND_KERNEL(16)
WESTWIND_KERNEL(32)
WESTWIND_KERNEL(64)
WESTWIND_KERNEL(96)
WESTWIND_KERNEL(128)
WESTWIND_KERNEL(256)
