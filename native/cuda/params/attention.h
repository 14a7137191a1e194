// What the attention kernels are given, and how they cut their work: used by both sides.
#pragma once
#include "attention_plan.h"

namespace westwind {

struct AttentionForwardArgs {
  AttentionParams op;
  AttentionPlan plan;
};
static_assert(sizeof(AttentionForwardArgs) == 136, "host and fatbin read this struct by layout");

// What backward adds to a row's scores, to base 2, and to the gradients of its weights.
struct alignas(8) AttentionRow {
  float lse;    // −lse · log2(e)
  float delta;  // −rowsum(dout ∘ out)
};

struct AttentionBackwardArgs {
  AttentionBackwardParams op;
  AttentionPlan plan;
  AttentionRow* rows;  // [Hq, T] in the workspace
};
static_assert(sizeof(AttentionBackwardArgs) == 160, "host and fatbin read this struct by layout");

// Tiles of the kernels with mma.sync, by head dimension padded to 16, 32, 64, 96, 128 or 256: a block has `rows` of its
// own side, a quarter for each warp, and walks over the other side `step` at a time, two steps in flight. Chosen so
// that no kernel spills, and that one of sm_86 (99 KiB) holds at least one block.
struct AttentionShape {
  int rows, step;
};
constexpr int kAttentionThreads = 128;
constexpr AttentionShape attention_forward_shape(int D) {
  return D <= 128 ? AttentionShape{128, 32} : AttentionShape{64, 32};
}
constexpr AttentionShape attention_dq_shape(int D) {
  return D <= 64 ? AttentionShape{128, 32} : D <= 128 ? AttentionShape{64, 32} : AttentionShape{64, 16};
}
constexpr AttentionShape attention_dkv_shape(int D) {
  return D <= 64 ? AttentionShape{128, 32} : D <= 128 ? AttentionShape{64, 32} : AttentionShape{64, 16};
}

// How many of the two tiles of the block's own side (Q and dO, or K and V) stay in registers; they pass through the
// shared memory of the steps, and only the rest has its own.
constexpr int attention_dq_in_registers(int D) { return D <= 128 ? 2 : 0; }
constexpr int attention_dkv_in_registers(int D) { return D <= 32 ? 2 : D == 96 || D == 128 ? 1 : 0; }

constexpr int attention_forward_shared_bytes(int D) {
  const AttentionShape shape = attention_forward_shape(D);
  return (shape.rows + 2 * 2 * shape.step) * D * 2;
}
constexpr int attention_backward_shared_bytes(AttentionShape shape, int in_registers, int D) {
  const int rows = (2 - in_registers) * shape.rows + 2 * 2 * shape.step;
  return (rows > 2 * shape.rows ? rows : 2 * shape.rows) * D * 2;
}
constexpr int attention_dq_shared_bytes(int D) {
  return attention_backward_shared_bytes(attention_dq_shape(D), attention_dq_in_registers(D), D);
}
// Behind the tiles of dkv: the AttentionRows of two steps.
constexpr int attention_dkv_rows_at(int D) {
  return attention_backward_shared_bytes(attention_dkv_shape(D), attention_dkv_in_registers(D), D);
}
constexpr int attention_dkv_shared_bytes(int D) {
  return attention_dkv_rows_at(D) + 2 * attention_dkv_shape(D).step * static_cast<int>(sizeof(AttentionRow));
}

// The same as constants of a kernel.
template <int D>
inline constexpr AttentionShape kAttentionForwardShape = attention_forward_shape(D);
template <int D>
inline constexpr AttentionShape kAttentionDqShape = attention_dq_shape(D);
template <int D>
inline constexpr AttentionShape kAttentionDkvShape = attention_dkv_shape(D);
template <int D>
inline constexpr int kAttentionDqInRegisters = attention_dq_in_registers(D);
template <int D>
inline constexpr int kAttentionDkvInRegisters = attention_dkv_in_registers(D);
template <int D>
inline constexpr int kAttentionDkvRowsAt = attention_dkv_rows_at(D);

// Rows of a tile of the simple kernels: a warp each, at most.
constexpr int kAttentionSimpleRows = 4;

}  // namespace westwind
