// dK and dV of attention_backward on tensor cores: a block has a tile of keys of one KV head and goes over the queries
// that see them: for each query head of the group those of its own segment, then those of the segments that have it as
// prefix. So every sum has one order, and nothing is added up in memory. Four products, all of them transposed so that
// weights come out as the operand that the next product takes:
//
//   Sᵀ = K Qᵀ     dPᵀ = V dOᵀ     dV += Pᵀ dO     dK += dSᵀ Q         (arXiv:2307.08691)
//
// Limited by the tensor cores: 8·D FLOPs for each query head and visible key. Contract: ops/attention.h
#include "common/attention_tile.cuh"

using namespace westwind;
using namespace westwind::attention;

namespace {

// The steps of queries of a block, in order.
template <int kStep>
struct QuerySteps {
  const AttentionPlan& plan;
  const Segments& g;
  const AttentionTile& tile;
  int last_head;  // of the group
  int first_child, children;
  int newest;  // largest position of the keys; read with a window only
  // The step at hand: rows row .. min(row + kStep, end) − 1 of query head `head`, of child `source`; −1: own queries.
  int head, source, row, end;

  __device__ QuerySteps(const AttentionBackwardArgs& args, const AttentionTile& tile_, int first_head, int group)
      : plan(args.plan),
        g(args.op.segments),
        tile(tile_),
        last_head(first_head + group - 1),
        newest(0),
        head(first_head) {
    first_child = plan.child_first[tile.segment];
    children = plan.child_first[tile.segment + 1] - first_child;
    if (g.window > 0) newest = range_of(plan.ranges, tile.first, tile.first + tile.rows).high;
    begin_own();
    settle();
  }
  __device__ bool done() const { return head > last_head; }
  __device__ void advance() {
    row += kStep;
    settle();
  }

 private:
  __device__ void begin_own() { source = -1, row = tile.first, end = tile.end; }

  // Goes on to the next step that exists and that the window does not hide. By whole warps.
  __device__ void settle() {
    for (;;) {
      if (g.window > 0) {
        while (row < end) {
          const int mine = row + lane_id() * kStep;
          const bool sees = mine < end && range_of(plan.ranges, mine, min(mine + kStep, end)).low - newest < g.window;
          const unsigned some = __ballot_sync(~0u, sees);
          row += (some != 0 ? __ffs(static_cast<int>(some)) - 1 : 32) * kStep;
          if (some != 0) break;
        }
      }
      if (row < end) return;
      if (++source < children) {
        const int child = plan.children[first_child + source];
        row = g.start[child], end = g.start[child + 1];
      } else {
        if (++head > last_head) return;
        begin_own();
      }
    }
  }
};

// Where kDv or kDk is false, the other is left to another launch.
template <int kD, bool kDv, bool kDk>
__device__ __forceinline__ void backward_kv(const AttentionBackwardArgs& args) {
  constexpr AttentionShape kShape = kAttentionBackwardShape<kD>;
  constexpr int kRows = kShape.rows, kStep = kShape.step;
  constexpr bool kKInRegisters = kAttentionDkvInRegisters<kD> >= 1, kVInRegisters = kAttentionDkvInRegisters<kD> == 2;
  constexpr uint32_t kStepBytes = 2 * kStep * kD * 2;  // Q and dO
  constexpr uint32_t kOwnBytes = kRows * kD * 2;       // K, and V
  static_assert(kRows == 16 * kWarps && kRows % kStep == 0, "16 rows a warp, and steps that keep to the segment");
  static_assert(2 * kOwnBytes <= 2 * kStepBytes || !kKInRegisters, "K and V pass through the memory of the steps");
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionBackwardParams& p = args.op;
  const Segments& g = p.segments;
  const int kv_head = static_cast<int>(blockIdx.x % p.Hkv), index = static_cast<int>(blockIdx.x / p.Hkv);
  if (index >= args.plan.counts[1]) return;
  const AttentionTile tile = args.plan.keys[index];

  const int64_t stride = (p.Hq + 2 * int64_t{p.Hkv}) * p.D, out_stride = p.Hq * int64_t{p.D};
  const int row_bytes = static_cast<int>(2 * stride), out_row_bytes = static_cast<int>(2 * out_stride);
  const bf16* qkv = static_cast<const bf16*>(p.qkv);
  const int64_t k_first = tile.first * stride + (p.Hq + kv_head) * int64_t{p.D}, v_after_k = int64_t{p.Hkv} * p.D;
  const uint32_t v_tile = shared_address(memory), k_tile = v_tile + kOwnBytes;
  const uint32_t steps = v_tile + (2 - kAttentionDkvInRegisters<kD>)*kOwnBytes;
  const float* numbers = reinterpret_cast<const float*>(memory + (steps - v_tile) + 2 * kStepBytes);
  // Of a slot: lse[kStep], then delta[kStep].
  QuerySteps<kStep> ahead(args, tile, kv_head * (p.Hq / p.Hkv), p.Hq / p.Hkv);
  const auto copy_step = [&](int slot) {
    const uint32_t to = steps + slot * kStepBytes;
    const bf16* q = qkv + ahead.row * stride + ahead.head * int64_t{p.D};
    const bf16* dout = static_cast<const bf16*>(p.dout) + ahead.row * out_stride + ahead.head * int64_t{p.D};
    const int rows = ahead.end - ahead.row;
    copy_rows<kD, kStep>(to, q, row_bytes, rows, p.D);
    copy_rows<kD, kStep>(to + kStepBytes / 2, dout, out_row_bytes, rows, p.D);
    if (threadIdx.x < 2 * kStep) {
      const int i = threadIdx.x % kStep;
      const float* from = (threadIdx.x < kStep ? p.lse : args.delta) + ahead.head * p.T + ahead.row;
      cp_async_4(shared_address(numbers) + (slot * 2 * kStep + threadIdx.x) * 4, i < rows ? from + i : p.lse, i < rows);
    }
    cp_async_commit();
  };

  copy_rows<kD, kRows>(k_tile, qkv + k_first, row_bytes, tile.rows, p.D);
  copy_rows<kD, kRows>(v_tile, qkv + k_first + v_after_k, row_bytes, tile.rows, p.D);
  cp_async_commit();
  const int warp_row = warp_id() * 16;
  uint32_t k_part[kKInRegisters ? kD / 16 : 1][4], v_part[kVInRegisters ? kD / 16 : 1][4];
  if constexpr (kKInRegisters) {
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
      load_a<kD>(k_part[i], k_tile, warp_row, i);
      if constexpr (kVInRegisters) load_a<kD>(v_part[i], v_tile, warp_row, i);
    }
    __syncthreads();  // the first step may take their place
  }

  const float factor = p.scale * kLog2E;
  const int first_key = tile.first + warp_row, gi = lane_id() / 4, t = lane_id() % 4;
  float dk[1][kDk ? kD / 8 : 1][4] = {}, dv[1][kDv ? kD / 8 : 1][4] = {};
  copy_step(0);
  for (int slot = 0; !ahead.done(); slot ^= 1) {
    const int row = ahead.row, end = ahead.end;
    const bool own = ahead.source < 0;
    ahead.advance();
    cp_async_wait<0>();
    __syncthreads();  // the step is here, and the slot of the one before is free
    if (!ahead.done()) copy_step(slot ^ 1);
    if (warp_row >= tile.rows || (own && row + kStep <= first_key)) continue;  // no query sees this warp's keys

    const uint32_t q_tile = steps + slot * kStepBytes, dout_tile = q_tile + kStepBytes / 2;
    const float* lse = numbers + slot * 2 * kStep;
    const float* delta = lse + kStep;
    float weights[1][kStep / 8][4] = {};
    multiply_rows<kD, kStep, 1>(weights, q_tile, [&](int i, uint32_t(&a)[1][4]) {
      if constexpr (kKInRegisters) {
#pragma unroll
        for (int e = 0; e < 4; ++e) a[0][e] = k_part[i][e];
      } else {
        load_a<kD>(a[0], k_tile, warp_row, i);
      }
    });
    const bool by_window =
        g.window > 0 && range_of(args.plan.ranges, row, min(row + kStep, end)).high -
                                range_of(args.plan.ranges, first_key, min(first_key + 16, tile.end)).low >=
                            g.window;
    const bool diagonal = own && row < first_key + 15;
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
      const float2 by = *reinterpret_cast<const float2*>(lse + 8 * j + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        weights[0][j][e] = exp2_fast(weights[0][j][e] * factor - (e % 2 == 0 ? by.x : by.y) * kLog2E);
      if (diagonal || by_window) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int query = row + 8 * j + 2 * t + e % 2, key = first_key + gi + e / 2 * 8;
          bool visible = !own || key <= query;
          if (by_window && visible && query < end && key < tile.end)
            visible = g.positions[query] - g.positions[key] < g.window;
          if (!visible) weights[0][j][e] = 0;
        }
      }
    }
    if constexpr (kDv) add_product<kD, kStep, 1>(dv, weights, dout_tile);
    if constexpr (kDk) {
      float dweights[1][kStep / 8][4] = {};
      multiply_rows<kD, kStep, 1>(dweights, dout_tile, [&](int i, uint32_t(&a)[1][4]) {
        if constexpr (kVInRegisters) {
#pragma unroll
          for (int e = 0; e < 4; ++e) a[0][e] = v_part[i][e];
        } else {
          load_a<kD>(a[0], v_tile, warp_row, i);
        }
      });
#pragma unroll
      for (int j = 0; j < kStep / 8; ++j) {
        const float2 less = *reinterpret_cast<const float2*>(delta + 8 * j + 2 * t);
#pragma unroll
        for (int e = 0; e < 4; ++e) weights[0][j][e] *= dweights[0][j][e] - (e % 2 == 0 ? less.x : less.y);
      }
      add_product<kD, kStep, 1>(dk, weights, q_tile);
    }
  }

  __syncthreads();  // the last steps have been read: their place takes the result
  if (warp_row >= tile.rows) return;
  bf16* out = static_cast<bf16*>(p.dqkv) + k_first + warp_row * stride;
  const auto to = [&](int i) { return warp_row + i < tile.rows ? out + i * stride : nullptr; };
  if constexpr (kDk)
    write_rows<kD>(
        dk[0], v_tile, warp_row, p.D, [&](int) { return p.scale; }, to);
  if constexpr (kDv)
    write_rows<kD>(
        dv[0], v_tile, warp_row, p.D, [](int) { return 1.f; },
        [&](int i) {
          bf16* row = to(i);
          return row == nullptr ? nullptr : row + v_after_k;
        });
}

}  // namespace

#define WESTWIND_KERNEL(name, D, dv, dk)                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)                    \
      attention_bwd_##name##_bf16_d##D(const __grid_constant__ AttentionBackwardArgs args) { \
    backward_kv<D, dv, dk>(args);                                                            \
  }
WESTWIND_KERNEL(dkv, 16, true, true)
WESTWIND_KERNEL(dkv, 32, true, true)
WESTWIND_KERNEL(dkv, 64, true, true)
WESTWIND_KERNEL(dkv, 96, true, true)
WESTWIND_KERNEL(dkv, 128, true, true)
WESTWIND_KERNEL(dv, 256, true, false)
WESTWIND_KERNEL(dk, 256, false, true)
