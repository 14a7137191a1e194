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
  // The step at hand: rows row .. min(row + kStep, end) − 1 of query head `head`, of child `source`; −1: own queries.
  int head, source, row, end;

  __device__ QuerySteps(const AttentionBackwardArgs& args, const AttentionTile& tile_, int first_head, int group)
      : plan(args.plan), g(args.op.segments), tile(tile_), last_head(first_head + group - 1), head(first_head) {
    begin_own();
    settle();
  }
  __device__ bool done() const { return head > last_head; }
  __device__ void advance() {
    row += kStep;
    settle();
  }

 private:
  __device__ void begin_own() { source = -1, row = tile.first, end = g.start[tile.segment + 1]; }

  // Goes on to the next step that exists and that the window does not hide. By whole warps.
  __device__ void settle() {
    for (;;) {
      if (g.window > 0) {
        const int first = opaque(tile.first);
        const int newest = range_of(plan.ranges, first, first + tile.rows).high;  // of the keys
        while (row < end) {
          const int mine = row + lane_id() * kStep;
          const bool sees = mine < end && range_of(plan.ranges, mine, min(mine + kStep, end)).low - newest < g.window;
          const unsigned some = __ballot_sync(~0u, sees);
          row += (some != 0 ? __ffs(static_cast<int>(some)) - 1 : 32) * kStep;
          if (some != 0) break;
        }
      }
      if (row < end) return;
      const int32_t* children = plan.child_first + tile.segment;
      if (children[0] + ++source < children[1]) {
        const int child = plan.children[children[0] + source];
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
  constexpr AttentionShape kShape = kAttentionDkvShape<kD>;
  constexpr int kRows = kShape.rows, kStep = kShape.step;
  constexpr int kRowTiles = kRows / (16 * kWarps), kWarpRows = 16 * kRowTiles;
  constexpr int kInRegisters = kAttentionDkvInRegisters<kD>;  // K, then V
  constexpr uint32_t kStepBytes = 2 * kStep * kD * 2;         // Q and dO
  constexpr uint32_t kOwnBytes = kRows * kD * 2;              // K, and V
  constexpr int kParts = kRowTiles;  // that dP is made in: as many registers as 16 rows of a warp take
  static_assert(kRows % kWarpRows == 0 && kRows % kStep == 0, "whole warps, and steps that keep to the segment");
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionBackwardParams& p = args.op;
  const Segments& g = p.segments;
  const int kv_head = static_cast<int>(blockIdx.x % p.Hkv), index = static_cast<int>(blockIdx.x / p.Hkv);
  if (index >= args.plan.counts[1]) return;
  const AttentionTile tile = args.plan.keys[index];

  const int head_bytes = 2 * p.D, out_row_bytes = p.Hq * head_bytes, row_bytes = out_row_bytes + 2 * p.Hkv * head_bytes;
  const int k_head = (p.Hq + kv_head) * head_bytes, v_after_k = p.Hkv * head_bytes;
  const uint32_t v_tile = shared_address(memory), k_tile = v_tile + kOwnBytes;
  const uint32_t steps = v_tile + (2 - kInRegisters) * kOwnBytes;
  const float* numbers = reinterpret_cast<const float*>(memory + kAttentionDkvRowsAt<kD>);
  // Of a slot: lse[kStep], then delta[kStep].
  QuerySteps<kStep> ahead(args, tile, kv_head * (p.Hq / p.Hkv), p.Hq / p.Hkv);
  const auto copy_step = [&](int slot) {
    const uint32_t to = steps + slot * kStepBytes;
    const int head_at = ahead.head * head_bytes;
    const int rows = ahead.end - ahead.row;
    copy_rows<kD, kStep>(to, {p.qkv, head_at, row_bytes}, ahead.row, rows, p.D);
    copy_rows<kD, kStep>(to + kStepBytes / 2, {p.dout, head_at, out_row_bytes}, ahead.row, rows, p.D);
    if (threadIdx.x < 2 * kStep) {
      const int i = threadIdx.x % kStep;
      const AttentionRow* from = args.rows + ahead.head * p.T + ahead.row + min(i, rows - 1);
      cp_async_4(shared_address(numbers) + (slot * 2 * kStep + threadIdx.x) * 4,
                 threadIdx.x < kStep ? &from->lse : &from->delta, i < rows);
    }
    cp_async_commit();
  };

  copy_rows<kD, kRows>(k_tile, {p.qkv, k_head, row_bytes}, tile.first, tile.rows, p.D);
  copy_rows<kD, kRows>(v_tile, {p.qkv, k_head + v_after_k, row_bytes}, tile.first, tile.rows, p.D);
  cp_async_commit();
  if constexpr (kInRegisters > 0) {
    cp_async_wait<0>();
    __syncthreads();
  }
  const int warp_row = warp_id() * kWarpRows;
  const Operands<kD> own_rows(Operands<kD>::lane_address(v_tile, warp_row));
  const RowOperands<kD, kRowTiles, (kInRegisters > 0), kOwnBytes> k_rows(own_rows);
  const RowOperands<kD, kRowTiles, (kInRegisters > 1)> v_rows(own_rows);
  if constexpr (kInRegisters > 0) __syncthreads();  // the first step may take their place

  const float factor = p.scale * kLog2E;
  const int T = static_cast<int>(p.T);
  const int first_key = tile.first + warp_row, gi = lane_id() / 4, t = lane_id() % 4;
  int oldest = 0;  // position of the warp's keys; read with a window only
  if (g.window > 0 && warp_row < tile.rows)
    oldest = range_of(args.plan.ranges, first_key, min(first_key + kWarpRows, T)).low;
  const uint32_t lane_steps = Operands<kD>::lane_address(steps, 0);
  float dk[kRowTiles][kDk ? kD / 8 : 1][4] = {}, dv[kRowTiles][kDv ? kD / 8 : 1][4] = {};
  copy_step(0);
  for (int slot = 0; !ahead.done(); slot ^= 1) {
    const int row = ahead.row;
    const bool own = ahead.source < 0;
    ahead.advance();
    cp_async_wait<0>();
    __syncthreads();  // the step is here, and the slot of the one before is free
    if (!ahead.done()) copy_step(slot ^ 1);
    if (warp_row >= tile.rows || (own && row + kStep <= first_key)) continue;  // no query sees this warp's keys

    const Operands<kD> step(lane_steps + slot * kStepBytes);
    const float* lse = numbers + slot * 2 * kStep + 2 * t;  // of the first two columns of a product
    const float* delta = lse + kStep;
    float weights[kRowTiles][kStep / 8][4];
    multiply_rows<0>(weights, k_rows, step, from_zero);
    const bool by_window =
        g.window > 0 && range_of(args.plan.ranges, row, min(row + kStep, T)).high - oldest >= g.window;
    const bool hidden = (own && row < first_key + kWarpRows - 1) || by_window;
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
      const float2 by = *reinterpret_cast<const float2*>(lse + 8 * j);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          weights[r][j][e] = exp2_fast(fmaf(weights[r][j][e], factor, e % 2 == 0 ? by.x : by.y));
    }
    if (hidden) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int query = row + 8 * j + 2 * t + e % 2, key = first_key + 16 * r + gi + e / 2 * 8;
            bool visible = !own || key <= query;
            if (by_window && visible && query < T && key < T)  // past the end of a segment there are zeros anyway
              visible = g.positions[query] - g.positions[key] < g.window;
            if (!visible) weights[r][j][e] = 0;
          }
    }
    if constexpr (kDv) add_product<kStepBytes / 2>(dv, weights, step);
    if constexpr (kDk) {
      unroll<kParts>([&]<int kPart>() {
        constexpr int kN = kStep / 8 / kParts, kPartBytes = kPart * 8 * kN * kD * 2;
        float dweights[kRowTiles][kN][4];
        multiply_rows<kStepBytes / 2 + kPartBytes>(dweights, v_rows, step, [&](int, int j) {
          const float2 by = *reinterpret_cast<const float2*>(delta + 8 * (kPart * kN + j));
          return float4{by.x, by.y, by.x, by.y};
        });
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
          for (int j = 0; j < kN; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) dweights[r][j][e] *= weights[r][kPart * kN + j][e];
        add_product<kPartBytes>(dk, dweights, step);
      });
    }
  }

  __syncthreads();  // the last steps have been read: their place takes the result
  if (warp_row >= tile.rows) return;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const int first = warp_row + 16 * r;
    const auto to = [&](int after) {
      char* out = static_cast<char*>(p.dqkv) + int64_t{tile.first + first} * row_bytes + k_head + after;
      return [=](int i) {
        return first + i < tile.rows ? reinterpret_cast<bf16*>(out + int64_t{i} * row_bytes) : nullptr;
      };
    };
    if constexpr (kDk)
      write_rows<kD>(
          dk[r], v_tile, first, p.D, [&](int) { return p.scale; }, to(0));
    if constexpr (kDv)
      write_rows<kD>(
          dv[r], v_tile, first, p.D, [](int) { return 1.f; }, to(v_after_k));
  }
}

}  // namespace

#define WESTWIND_KERNEL(name, D, dv, dk)                                                     \
  extern "C" __global__ void __launch_bounds__(kThreads, D <= 16 ? 3 : 2)                    \
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
