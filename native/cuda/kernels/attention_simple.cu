// attention and attention_backward for what the tensor-core kernels do not take: f32, and bf16 whose rows are not on
// 16-byte boundaries. A warp per row, f32 throughout, any head dimension; limited by loads from the first-level cache.
// Forward and dQ: 32 logical keys at a time, a lane each, with an online softmax (arXiv:2307.08691); dK and dV: 32
// queries at a time. Contract: ops/attention.h
#include "common/vec.cuh"
#include "params/attention.h"

using namespace westwind;

namespace {

constexpr int kWarp = 32;

__device__ __forceinline__ int lane_id() { return threadIdx.x % kWarp; }
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}

// The warp's own row of D elements, times `factor`, into shared memory.
template <class T>
__device__ void load_row(float* to, const T* from, int D, float factor) {
  for (int d = lane_id(); d < D; d += kWarp) to[d] = to_f32(from[d]) * factor;
}

template <class T>
__device__ float dot(const float* a, const T* b, int D) {
  float sum = 0;
#pragma unroll 4
  for (int d = 0; d < D; ++d) sum += a[d] * to_f32(b[d]);
  return sum;
}

// sums[d] = sums[d] · shrink + Σ_j weight_j · row_j[d]; lane j holds weight_j and row_j. Weights of 0 hide what they
// would multiply.
template <class T>
__device__ void add_weighted(float* sums, float shrink, float weight, const T* row, int D) {
  const unsigned seen = __ballot_sync(~0u, weight != 0);
  const auto address = reinterpret_cast<unsigned long long>(row);
  for (int base = 0; base < D; base += kWarp) {
    const int d = base + lane_id();
    float sum = d < D ? sums[d] * shrink : 0;
    for (unsigned left = seen; left != 0; left &= left - 1) {
      const int j = __ffs(static_cast<int>(left)) - 1;
      const float w = __shfl_sync(~0u, weight, j);
      const T* from = reinterpret_cast<const T*>(__shfl_sync(~0u, address, j));
      if (d < D) sum += w * to_f32(from[d]);
    }
    if (d < D) sums[d] = sum;
  }
}

// The row and head of this warp; false: none.
struct Place {
  AttentionTile tile;
  int row, head;
};
__device__ bool find_place(const AttentionTile* tiles, int count, int heads, Place* place) {
  const int index = static_cast<int>(blockIdx.x / heads), warp = threadIdx.x / kWarp;
  if (index >= count) return false;
  place->tile = tiles[index];
  place->row = place->tile.first + warp;
  place->head = static_cast<int>(blockIdx.x % heads);
  return warp < place->tile.rows;
}

// body(row, visible) for the logical keys of a query, 32 at a time; `row` is a row that exists.
template <class Body>
__device__ void for_keys(const Segments& g, const Place& at, const Body& body) {
  const int seen = at.tile.prefix_rows + at.row - at.tile.start + 1;
  const int oldest = g.window > 0 ? g.positions[at.row] - g.window : -1;  // positions are >= 0
  for (int base = 0; base < seen; base += kWarp) {
    const int key = base + lane_id();
    const int row = key < at.tile.prefix_rows ? at.tile.prefix_first + key
                    : key < seen              ? at.tile.start + key - at.tile.prefix_rows
                                              : at.row;
    const bool visible = key < seen && (g.window <= 0 || g.positions[row] > oldest);
    if (__any_sync(~0u, visible)) body(row, visible);
  }
}

template <class T>
__device__ void forward(const AttentionForwardArgs& args) {
  extern __shared__ float memory[];
  const AttentionParams& p = args.op;
  Place at;
  if (!find_place(args.plan.queries, args.plan.counts[0], p.Hq, &at)) return;
  const int D = p.D;
  const int64_t stride = (p.Hq + 2 * int64_t{p.Hkv}) * D;
  const T* qkv = static_cast<const T*>(p.qkv);
  const T* k = qkv + (p.Hq + at.head / (p.Hq / p.Hkv)) * int64_t{D};
  const T* v = k + p.Hkv * int64_t{D};
  float* q = memory + threadIdx.x / kWarp * (2 * D);
  float* sums = q + D;
  load_row(q, qkv + at.row * stride + at.head * int64_t{D}, D, p.scale);
  for (int d = lane_id(); d < D; d += kWarp) sums[d] = 0;
  __syncwarp();

  float top = -INFINITY, total = 0;
  for_keys(p.segments, at, [&](int row, bool visible) {
    const float score = visible ? dot(q, k + row * stride, D) : -INFINITY;
    const float new_top = fmaxf(top, warp_max(score));
    const float origin = new_top == -INFINITY ? 0 : new_top;
    const float weight = visible ? expf(score - origin) : 0;
    const float shrink = expf(top - origin);
    total = total * shrink + warp_sum(weight);
    top = new_top;
    add_weighted(sums, shrink, weight, v + row * stride, D);
  });
  T* out = static_cast<T*>(p.out) + (at.row * int64_t{p.Hq} + at.head) * D;
  for (int d = lane_id(); d < D; d += kWarp) out[d] = from_f32<T>(sums[d] / total);
  if (lane_id() == 0) p.lse[at.head * p.T + at.row] = top + logf(total);
}

template <class T>
__device__ void backward_q(const AttentionBackwardArgs& args) {
  extern __shared__ float memory[];
  const AttentionBackwardParams& p = args.op;
  Place at;
  if (!find_place(args.plan.queries, args.plan.counts[0], p.Hq, &at)) return;
  const int D = p.D;
  const int64_t stride = (p.Hq + 2 * int64_t{p.Hkv}) * D;
  const T* qkv = static_cast<const T*>(p.qkv);
  const T* k = qkv + (p.Hq + at.head / (p.Hq / p.Hkv)) * int64_t{D};
  const T* v = k + p.Hkv * int64_t{D};
  float* q = memory + threadIdx.x / kWarp * (3 * D);
  float* dout = q + D;
  float* dq = dout + D;
  load_row(q, qkv + at.row * stride + at.head * int64_t{D}, D, p.scale);
  load_row(dout, static_cast<const T*>(p.dout) + (at.row * int64_t{p.Hq} + at.head) * D, D, 1);
  for (int d = lane_id(); d < D; d += kWarp) dq[d] = 0;
  __syncwarp();
  const float lse = p.lse[at.head * p.T + at.row], delta = args.rows[at.head * p.T + at.row].delta;
  for_keys(p.segments, at, [&](int row, bool visible) {
    const float weight = visible ? expf(dot(q, k + row * stride, D) - lse) : 0;
    const float dscore = visible ? weight * (dot(dout, v + row * stride, D) + delta) : 0;
    add_weighted(dq, 1, dscore, k + row * stride, D);
  });
  T* out = static_cast<T*>(p.dqkv) + at.row * stride + at.head * int64_t{D};
  for (int d = lane_id(); d < D; d += kWarp) out[d] = from_f32<T>(dq[d] * p.scale);
}

template <class T>
__device__ void backward_kv(const AttentionBackwardArgs& args) {
  extern __shared__ float memory[];
  const AttentionBackwardParams& p = args.op;
  const Segments& g = p.segments;
  Place at;
  if (!find_place(args.plan.keys, args.plan.counts[1], p.Hkv, &at)) return;
  const int D = p.D, group = p.Hq / p.Hkv;
  const int64_t stride = (p.Hq + 2 * int64_t{p.Hkv}) * D, out_stride = p.Hq * int64_t{D};
  const T* qkv = static_cast<const T*>(p.qkv);
  const int64_t own = at.row * stride + (p.Hq + at.head) * int64_t{D};
  float* k = memory + threadIdx.x / kWarp * (4 * D);
  float* v = k + D;
  float* dk = v + D;
  float* dv = dk + D;
  load_row(k, qkv + own, D, p.scale);
  load_row(v, qkv + own + p.Hkv * int64_t{D}, D, 1);
  for (int d = lane_id(); d < D; d += kWarp) dk[d] = dv[d] = 0;
  __syncwarp();

  const int first_child = args.plan.child_first[at.tile.segment];
  const int children = args.plan.child_first[at.tile.segment + 1] - first_child;
  for (int head = at.head * group; head < (at.head + 1) * group; ++head) {
    const T* q = qkv + head * int64_t{D};
    const T* dout = static_cast<const T*>(p.dout) + head * int64_t{D};
    for (int source = -1; source < children; ++source) {
      const int segment = source < 0 ? at.tile.segment : args.plan.children[first_child + source];
      const int from = source < 0 ? at.row : g.start[segment], to = g.start[segment + 1];
      for (int base = from; base < to; base += kWarp) {
        const int t = base + lane_id();
        const bool visible = t < to && (g.window <= 0 || g.positions[t] - g.positions[at.row] < g.window);
        if (!__any_sync(~0u, visible)) continue;
        const int row = t < to ? t : base;
        float weight = 0, dscore = 0;
        if (visible) {
          weight = expf(dot(k, q + row * stride, D) - p.lse[head * p.T + row]);
          dscore = weight * (dot(v, dout + row * out_stride, D) + args.rows[head * p.T + row].delta);
        }
        add_weighted(dv, 1, weight, dout + row * out_stride, D);
        add_weighted(dk, 1, dscore, q + row * stride, D);
      }
    }
  }
  T* out = static_cast<T*>(p.dqkv) + own;
  for (int d = lane_id(); d < D; d += kWarp) {
    out[d] = from_f32<T>(dk[d] * p.scale);
    out[p.Hkv * int64_t{D} + d] = from_f32<T>(dv[d]);
  }
}

}  // namespace

#define WESTWIND_KERNEL(name, Args, body)                                      \
  extern "C" __global__ void __launch_bounds__(kAttentionSimpleRows* kWarp, 8) \
      name(const __grid_constant__ Args args) {                                \
    body;                                                                      \
  }
WESTWIND_KERNEL(attention_fwd_f32, AttentionForwardArgs, forward<float>(args))
WESTWIND_KERNEL(attention_fwd_bf16, AttentionForwardArgs, forward<bf16>(args))
WESTWIND_KERNEL(attention_bwd_dq_f32, AttentionBackwardArgs, backward_q<float>(args))
WESTWIND_KERNEL(attention_bwd_dq_bf16, AttentionBackwardArgs, backward_q<bf16>(args))
WESTWIND_KERNEL(attention_bwd_dkv_f32, AttentionBackwardArgs, backward_kv<float>(args))
WESTWIND_KERNEL(attention_bwd_dkv_bf16, AttentionBackwardArgs, backward_kv<bf16>(args))
