// attention on Hopper: wgmma and TMA (kernels/attention_fwd_sm90.cu, attention_bwd_dq_sm90.cu,
// attention_bwd_dkv_sm90.cu). launch/attention.cc asks these first, and cuts the row as they say.
#pragma once
#include "context.h"
#include "params/attention.h"

namespace westwind::cuda {

// Rows of a query tile (backward: and of a key tile); 0: not for these kernels. Depends on nothing that changes with
// the batch.
int32_t attention_sm90_rows(const Context& context, const AttentionParams& p);
int32_t attention_backward_sm90_rows(const Context& context, const AttentionBackwardParams& p);

// Grids: a block for each tile and head.
Status attention_sm90(Context& context, const AttentionForwardArgs& args, const Dim& grid);
// After the kernel that writes delta.
Status attention_backward_sm90(Context& context, const AttentionBackwardArgs& args, const Dim& query_grid,
                               const Dim& key_grid);

}  // namespace westwind::cuda
