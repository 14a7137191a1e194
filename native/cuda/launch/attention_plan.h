// Host side of the plan of attention (params/attention_plan.h).
#pragma once
#include "context.h"
#include "ops/attention.h"
#include "params/attention_plan.h"

namespace westwind::cuda {

struct AttentionCut {
  int32_t query_rows;    // rows of a query tile
  int32_t key_rows = 0;  // rows of a key tile; 0: none are needed
};

// A plan that will be in the workspace when the kernels launched next run.
struct AttentionPlanned {
  AttentionPlan plan;
  int32_t query_tiles, key_tiles;  // at most so many
  void* more;                      // the workspace asked for beside the plan, 256-byte aligned
};

// Enqueues the kernel that tests the segments and writes the plan. Where they are wrong the next wait fails.
Status plan_attention(Context& context, const char* op, const Segments& segments, int64_t T, const AttentionCut& cut,
                      int64_t more_bytes, AttentionPlanned* out);

}  // namespace westwind::cuda
