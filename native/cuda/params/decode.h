// What the kernels of ops/decode.h need beside the contract: where a wrong row is told, and room for partial results.
#pragma once
#include "fault.h"
#include "ops/decode.h"

namespace westwind {

struct KvAppendLaunch {
  KvAppendParams p;
  Fault* fault;
  int32_t slot_fault, position_fault;
};
static_assert(sizeof(KvAppendLaunch) == 96, "host and fatbin read this struct by layout");

struct KvGatherLaunch {
  KvGatherParams p;
  Fault* fault;
  int32_t slot_fault, position_fault;
};
static_assert(sizeof(KvGatherLaunch) == 96, "host and fatbin read this struct by layout");

// Keys that are reduced together. A row's keys are cut at multiples of it, whatever else is in the batch and however
// the chunks are spread over blocks, so its bits depend on the row alone.
constexpr int kKeyChunk = 256;

// A chunk's part of a row's softmax.
struct ChunkStats {
  float max;  // of the scores, in units of log 2; −inf: the row sees no key of the chunk
  float sum;  // Σ 2^(score − max)
};

// Of rows first_row .. first_row + rows − 1. Block (x, y, z): rows x · rows_per_block on, the (y % head_blocks)-th part
// of the query heads of KV head y / head_blocks, every gridDim.z-th chunk from the z-th that the rows see.
struct DecodeLaunch {
  DecodeAttentionParams p;
  Fault* fault;
  float* sums;  // [rows, chunks, Hq, D]: Σ 2^(score − max) · v of the chunk; null: one chunk, written to p.out
  ChunkStats* stats;  // [rows, chunks, Hq]
  int64_t first_row, rows;
  int32_t slot_fault, position_fault;
  int32_t rows_per_block, head_blocks, chunks;
};
static_assert(sizeof(DecodeLaunch) == 160, "host and fatbin read this struct by layout");

struct SampleLaunch {
  SampleParams p;
  Fault* fault;
  int32_t uniform_fault, logits_fault;
};
static_assert(sizeof(SampleLaunch) == 72, "host and fatbin read this struct by layout");

}  // namespace westwind
