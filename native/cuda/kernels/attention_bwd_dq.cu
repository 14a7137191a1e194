// dQ of attention_backward on tensor cores: a block has a tile of queries of one head and goes over the keys it sees,
// as in forward, and makes the weights again from lse. Three products: S = Q Kᵀ, dP = dO Vᵀ, dQ += dS K with
// dS = P ∘ (dP − delta) rounded to bf16 (arXiv:2307.08691). Limited by the tensor cores: 6·D FLOPs for each query head
// and visible key. Contract: ops/attention.h
#include "common/attention_tile.cuh"

using namespace westwind;
using namespace westwind::attention;

namespace {

template <int kD>
__device__ __forceinline__ void backward_q(const AttentionBackwardArgs& args) {
  constexpr AttentionShape kShape = kAttentionBackwardShape<kD>;
  constexpr int kRows = kShape.rows, kStep = kShape.step;
  constexpr bool kInRegisters = kAttentionDqInRegisters<kD> == 2;
  constexpr uint32_t kStepBytes = 2 * kStep * kD * 2;  // K and V
  constexpr uint32_t kOwnBytes = kRows * kD * 2;       // Q, and dO
  static_assert(kRows == 16 * kWarps, "16 rows a warp");
  static_assert(!kInRegisters || 2 * kOwnBytes <= 2 * kStepBytes, "Q and dO pass through the memory of the steps");
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionBackwardParams& p = args.op;
  const int head = static_cast<int>(blockIdx.x % p.Hq), index = static_cast<int>(blockIdx.x / p.Hq);
  if (index >= args.plan.counts[0]) return;
  const AttentionTile tile = args.plan.queries[index];
  const KeySteps<kStep> keys(tile, args.plan, p.segments);

  const int64_t stride = (p.Hq + 2 * int64_t{p.Hkv}) * p.D, out_stride = p.Hq * int64_t{p.D};
  const bf16* qkv = static_cast<const bf16*>(p.qkv);
  const int64_t q_first = tile.first * stride + head * int64_t{p.D};
  const bf16* dout = static_cast<const bf16*>(p.dout) + tile.first * out_stride + head * int64_t{p.D};
  const bf16* k = qkv + (p.Hq + head / (p.Hq / p.Hkv)) * int64_t{p.D};
  const int row_bytes = static_cast<int>(2 * stride);
  const int64_t v_after_k = int64_t{2} * p.Hkv * p.D;  // bytes
  const uint32_t q_tile = shared_address(memory), dout_tile = q_tile + kOwnBytes;
  const uint32_t steps = kInRegisters ? q_tile : q_tile + 2 * kOwnBytes;
  const auto copy_step = [&](int step, int slot) {
    keys.template copy<kD>(steps + slot * kStepBytes, k, row_bytes, v_after_k, step, p.D);
    cp_async_commit();
  };

  copy_rows<kD, kRows>(q_tile, qkv + q_first, row_bytes, tile.rows, p.D);
  copy_rows<kD, kRows>(dout_tile, dout, static_cast<int>(2 * out_stride), tile.rows, p.D);
  cp_async_commit();
  const int warp_row = warp_id() * 16;
  uint32_t q_part[kInRegisters ? kD / 16 : 1][4], dout_part[kInRegisters ? kD / 16 : 1][4];
  if constexpr (kInRegisters) {
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
      load_a<kD>(q_part[i], q_tile, warp_row, i);
      load_a<kD>(dout_part[i], dout_tile, warp_row, i);
    }
    __syncthreads();  // the first step may take their place
  }
  int now = keys.visible(0);
  copy_step(now, 0);

  const int first_seen = tile.prefix_rows + tile.first - tile.start + warp_row + 1;
  const int last_seen = first_seen + min(16, tile.rows - warp_row) - 1;
  const float factor = p.scale * kLog2E;
  float lse[2], delta[2];  // of rows g and g + 8; lse times log2(e)
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(warp_row + 8 * half + lane_id() / 4, tile.rows - 1);
    lse[half] = p.lse[head * p.T + tile.first + row] * kLog2E;
    delta[half] = args.delta[head * p.T + tile.first + row];
  }
  float dq[1][kD / 8][4] = {};

  for (int slot = 0; now < keys.count(); slot ^= 1) {
    const int next = keys.visible(now + 1);
    cp_async_wait<0>();
    __syncthreads();  // the step is here, and the slot of the one before is free
    if (next < keys.count()) copy_step(next, slot ^ 1);
    const int step = now;
    now = next;
    if (warp_row >= tile.rows || step * kStep >= last_seen) continue;  // nothing that this warp's rows see

    const uint32_t k_tile = steps + slot * kStepBytes, v_tile = k_tile + kStepBytes / 2;
    float scores[1][kStep / 8][4] = {}, dweights[1][kStep / 8][4] = {};
    multiply_rows<kD, kStep, 1>(scores, k_tile, [&](int i, uint32_t(&a)[1][4]) {
      if constexpr (kInRegisters) {
#pragma unroll
        for (int e = 0; e < 4; ++e) a[0][e] = q_part[i][e];
      } else {
        load_a<kD>(a[0], q_tile, warp_row, i);
      }
    });
    multiply_rows<kD, kStep, 1>(dweights, v_tile, [&](int i, uint32_t(&a)[1][4]) {
      if constexpr (kInRegisters) {
#pragma unroll
        for (int e = 0; e < 4; ++e) a[0][e] = dout_part[i][e];
      } else {
        load_a<kD>(a[0], dout_tile, warp_row, i);
      }
    });
    const bool by_window = keys.window_cuts(step);
    if ((step + 1) * kStep > first_seen || by_window)
      hide_keys<kStep, 1>(scores, keys, p.segments, step, first_seen, tile.first + warp_row, tile.first + tile.rows - 1,
                          by_window, -INFINITY);
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float weight = exp2_fast(scores[0][j][e] * factor - lse[e / 2]);
        scores[0][j][e] = weight * (dweights[0][j][e] - delta[e / 2]);
      }
    add_product<kD, kStep, 1>(dq, scores, k_tile);
  }

  __syncthreads();  // the last steps have been read: their place takes the result
  if (warp_row >= tile.rows) return;
  bf16* out = static_cast<bf16*>(p.dqkv) + q_first;
  write_rows<kD>(
      dq[0], q_tile, warp_row, p.D, [&](int) { return p.scale; },
      [&](int i) { return warp_row + i < tile.rows ? out + (warp_row + i) * stride : nullptr; });
}

}  // namespace

#define WESTWIND_KERNEL(D)                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)              \
      attention_bwd_dq_bf16_d##D(const __grid_constant__ AttentionBackwardArgs args) { \
    backward_q<D>(args);                                                               \
  }
WESTWIND_KERNEL(16)
WESTWIND_KERNEL(32)
WESTWIND_KERNEL(64)
WESTWIND_KERNEL(96)
WESTWIND_KERNEL(128)
WESTWIND_KERNEL(256)
