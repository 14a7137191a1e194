// attention on tensor cores: a block has a tile of queries of one head and goes over the keys it sees, two steps in
// flight (FlashAttention-2, arXiv:2307.08691). Scores and softmax are f32, weights are rounded to bf16 for the second
// product. Limited by the tensor cores: 4·D FLOPs for each query head and visible key. Contract: ops/attention.h
#include <math.h>

#include "common/attention_tile.cuh"

using namespace westwind;
using namespace westwind::attention;

namespace {

// A row's origin, from which its weights are counted, is raised to its maximum only when that is higher by more than
// this many powers of two: until then weights are at most 2^8, which costs no precision, and the sums need not be
// scaled. It begins below all scores, so that −∞ has weight 0 from it.
constexpr float kSlack = 8, kNothing = -3e38f;
constexpr float kLn2 = 0.6931471805599453f;

template <int kD>
__device__ __forceinline__ void forward(const AttentionForwardArgs& args) {
  constexpr AttentionShape kShape = kAttentionForwardShape<kD>;
  constexpr int kRows = kShape.rows, kStep = kShape.step;
  constexpr int kRowTiles = kRows / (16 * kWarps), kWarpRows = 16 * kRowTiles;
  constexpr uint32_t kStepBytes = 2 * kStep * kD * 2;  // K and V
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionParams& p = args.op;
  const auto head = [&] { return static_cast<int>(blockIdx.x % p.Hq); };
  const int index = static_cast<int>(blockIdx.x / p.Hq);
  if (index >= args.plan.counts[0]) return;
  const AttentionTile tile = args.plan.queries[index];
  const KeySteps<kStep> keys(tile, args.plan, p.segments);

  const int head_bytes = 2 * p.D, row_bytes = (p.Hq + 2 * p.Hkv) * head_bytes;
  const HeadRows q{p.qkv, head() * head_bytes, row_bytes};
  const auto key_rows = [&] { return HeadRows{p.qkv, (p.Hq + head() / (p.Hq / p.Hkv)) * head_bytes, row_bytes}; };
  const HeadRows k = key_rows();
  const uint32_t q_tile = shared_address(memory), steps = q_tile + kRows * kD * 2;
  const auto copy_step = [&](int step, int slot) {
    // At 256 no register is left to keep k in.
    keys.template copy<kD>(steps + slot * kStepBytes, kD > 128 ? key_rows() : k, p.Hkv * head_bytes, step, p.D);
    cp_async_commit();
  };

  copy_rows<kD, kRows>(q_tile, q, tile.first, tile.rows, p.D);
  int now = keys.visible(0);
  copy_step(now, 0);

  const int warp_row = warp_id() * kWarpRows;  // of the tile
  const int first_seen = tile.prefix_rows + tile.first - tile.start + warp_row + 1;
  const int last_seen = first_seen + min(kWarpRows, tile.rows - warp_row) - 1;
  const float factor = p.scale * kLog2E;
  const RowOperands<kD, kRowTiles, false> q_rows(Operands<kD>(Operands<kD>::lane_address(q_tile, warp_row)));
  const uint32_t lane_steps = Operands<kD>::lane_address(steps, 0);
  float sums[kRowTiles][kD / 8][4] = {};
  // Of rows g and g + 8: what their weights are counted from, to base 2, and the sum of this lane's weights.
  float origin[kRowTiles][2], total[kRowTiles][2] = {};
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) origin[r][0] = origin[r][1] = kNothing;

  for (int slot = 0; now < keys.count(); slot ^= 1) {
    const int next = keys.visible(now + 1);
    cp_async_wait<0>();
    __syncthreads();  // the step is here, and the slot of the one before is free
    if (next < keys.count()) copy_step(next, slot ^ 1);
    const int step = now;
    now = next;
    if (warp_row >= tile.rows || step * kStep >= last_seen) continue;  // nothing that this warp's rows see

    const Operands<kD> kv(lane_steps + slot * kStepBytes);
    float scores[kRowTiles][kStep / 8][4];
    multiply_rows<0>(scores, q_rows, kv, from_zero);
    const bool by_window = keys.window_cuts(step);
    if ((step + 1) * kStep > first_seen || by_window)
      hide_keys<kStep, kRowTiles>(scores, keys, p.segments, step, first_seen, tile.first + warp_row,
                                  tile.first + tile.rows - 1, by_window, -INFINITY);

    float top[kRowTiles][2];
    bool raised = false;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = -INFINITY;
#pragma unroll
        for (int j = 0; j < kStep / 8; ++j)
          highest = fmaxf(highest, fmaxf(scores[r][j][2 * half], scores[r][j][2 * half + 1]));
        highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
        top[r][half] = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2)) * factor;
        raised |= top[r][half] - origin[r][half] > kSlack;
      }
    if (__any_sync(~0u, raised)) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const bool above = top[r][half] - origin[r][half] > kSlack;
          const float shrink = above ? exp2_fast(origin[r][half] - top[r][half]) : 1;
          origin[r][half] = above ? top[r][half] : origin[r][half];
          total[r][half] *= shrink;
#pragma unroll
          for (int d = 0; d < kD / 8; ++d)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) sums[r][d][e] *= shrink;
        }
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kStep / 8; ++j) {
          float* pair = scores[r][j] + 2 * half;
          pair[0] = exp2_fast(pair[0] * factor - origin[r][half]);
          pair[1] = exp2_fast(pair[1] * factor - origin[r][half]);
          sum += pair[0] + pair[1];
        }
        total[r][half] += sum;
      }
    add_product<kStepBytes / 2>(sums, scores, kv);
  }

  if (warp_row >= tile.rows) return;
  bf16* out = static_cast<bf16*>(p.out) + (tile.first * int64_t{p.Hq} + head()) * p.D;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[r][half];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      inverse[half] = sum == 0 ? 0 : 1 / sum;
      const int row = warp_row + 16 * r + 8 * half + lane_id() / 4;
      if (lane_id() % 4 == 0 && row < tile.rows)
        p.lse[head() * p.T + tile.first + row] = fmaf(origin[r][half], kLn2, logf(sum));
    }
    // The warp's queries are not needed any more: their place takes the result.
    write_rows<kD>(
        sums[r], q_tile, warp_row + 16 * r, p.D, [&](int half) { return inverse[half]; },
        [&](int i) {
          const int row = warp_row + 16 * r + i;
          return row < tile.rows ? out + row * int64_t{p.Hq} * p.D : nullptr;
        });
  }
}

}  // namespace

#define WESTWIND_KERNEL(D)                                                         \
  extern "C" __global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)          \
      attention_fwd_bf16_d##D(const __grid_constant__ AttentionForwardArgs args) { \
    forward<D>(args);                                                              \
  }
WESTWIND_KERNEL(16)
WESTWIND_KERNEL(32)
WESTWIND_KERNEL(64)
WESTWIND_KERNEL(96)
WESTWIND_KERNEL(128)
WESTWIND_KERNEL(256)
