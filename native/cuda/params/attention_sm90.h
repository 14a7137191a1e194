// What the Hopper kernels of attention get beside the plan: the activations as TMA sees them.
#pragma once
#include <cuda.h>
#include <stddef.h>

#include "attention.h"

namespace westwind {

// A tensor [T, heads, D] as boxes of 1, 2, 4 … 128 rows of one head by 64 columns, 128-byte swizzle; what lies past D
// or T reads as 0. Runs of rows that are no power of two are put together from several boxes.
constexpr int kRowBoxes = 8;
constexpr int kBoxColumns = 64;
struct RowBoxes {
  CUtensorMap rows[kRowBoxes];  // [i]: 2^i rows
};

struct AttentionForwardSm90Params {
  RowBoxes qkv;
  AttentionParams op;
  AttentionPlan plan;
};
static_assert(offsetof(AttentionForwardSm90Params, plan) == 1024 + 88, "host and fatbin read this struct by layout");

struct AttentionBackwardSm90Params {
  RowBoxes qkv, dout;
  AttentionBackwardParams op;
  AttentionPlan plan;
  const AttentionRow* rows;  // [Hq, T]
};
static_assert(offsetof(AttentionBackwardSm90Params, rows) == 2048 + 152, "host and fatbin read this struct by layout");

}  // namespace westwind
