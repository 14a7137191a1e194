// What the attention kernels are given, and how they cut their work: used by both sides.
#pragma once
#include "attention_plan.h"

namespace westwind {

struct AttentionForwardArgs {
  AttentionParams op;
  AttentionPlan plan;
};
static_assert(sizeof(AttentionForwardArgs) == 136, "host and fatbin read this struct by layout");

struct AttentionBackwardArgs {
  AttentionBackwardParams op;
  AttentionPlan plan;
  float* delta;  // [Hq, T] in the workspace: rowsum(dout ∘ out)
};
static_assert(sizeof(AttentionBackwardArgs) == 160, "host and fatbin read this struct by layout");

// Tiles of the kernels with mma.sync, by head dimension padded to 16, 32, 64, 96, 128 or 256: a block has `rows` of its
// own side and walks over the other side `step` at a time, two steps in flight. Chosen so that no kernel spills, and
// that a multiprocessor of sm_80 holds three blocks up to 64, two up to 128, and one of sm_86 (99 KiB) at least one.
struct AttentionShape {
  int rows, step;
};
constexpr int kAttentionThreads = 128;
constexpr AttentionShape attention_forward_shape(int D) {
  return D <= 128 ? AttentionShape{128, 32} : AttentionShape{64, 32};
}
constexpr AttentionShape attention_backward_shape(int D) {
  return D <= 128 ? AttentionShape{64, 32} : AttentionShape{64, 16};
}
template <int D>
inline constexpr AttentionShape kAttentionForwardShape = attention_forward_shape(D);
template <int D>
inline constexpr AttentionShape kAttentionBackwardShape = attention_backward_shape(D);

// How many of the two tiles of the block's own side (Q and dO, or K and V) stay in registers; they pass through the
// shared memory of the steps, and only the rest has its own.
constexpr int attention_dq_in_registers(int D) { return D <= 128 ? 2 : 0; }
constexpr int attention_dkv_in_registers(int D) { return D <= 32 ? 2 : D <= 128 ? 1 : 0; }
template <int D>
inline constexpr int kAttentionDqInRegisters = attention_dq_in_registers(D);
template <int D>
inline constexpr int kAttentionDkvInRegisters = attention_dkv_in_registers(D);

constexpr int attention_forward_shared_bytes(int D) {
  const AttentionShape shape = attention_forward_shape(D);
  return (shape.rows + 2 * 2 * shape.step) * D * 2;
}
constexpr int attention_backward_shared_bytes(int D, int in_registers) {
  const AttentionShape shape = attention_backward_shape(D);
  const int rows = (2 - in_registers) * shape.rows + 2 * 2 * shape.step;
  return rows * D * 2 + 2 * 2 * shape.step * 4;  // lse and delta of two steps
}

// Rows of a tile of the simple kernels: a warp each, at most.
constexpr int kAttentionSimpleRows = 4;

}  // namespace westwind
