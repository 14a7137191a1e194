// What the kernels of gemm are given, beside the contract (ops/gemm.h).
#pragma once
#include "ops/gemm.h"

namespace westwind {

// An f32 C is summed in chunks of so many products: each chunk from 0 in registers, then added to C in ascending order.
// One block may walk the chunks, or a block each may leave its sum in `partial` for gemm_reduce to add in the same
// order: the same bits, so the number of tiles may decide. Longer chunks leave less to gain where tiles are few,
// shorter ones read and write C more often: at 8192, 256 KB for the 128 × 256 × 8192 products of a tile, by the clocks
// of sm_80 3 % of their time from the second-level cache and 8 % from memory. A bf16 C would be rounded between chunks;
// it is one chunk.
constexpr int64_t kChunkK = 8192;

struct GemmKernelParams {
  GemmParams g;
  float* partial;  // [chunks, M, N], then grid.y is the chunk; null: one block walks all
  int64_t chunk;   // products in a chunk: kChunkK, or all of them
  int32_t tiles_m, tiles_n;
};
static_assert(sizeof(GemmKernelParams) == 120, "host and fatbin read this struct by layout");

// The tiles of the tensor-core kernels of sm_80: tile(BlockM, BlockN, BlockK, WarpM, WarpN, Stages). A block has
// BlockM / WarpM × BlockN / WarpN warps. WarpM × WarpN decides how much of shared memory's bandwidth the products take:
// 64 × 64 reads 4 KB for 32 of them, half of what a multiprocessor of sm_80 can. Stages × (BlockM + BlockN) × BlockK
// bf16 fit 99 KB, all that sm_86 and sm_89 have. BlockM × BlockN is in the kernel's name.
// clang-format off
#define WESTWIND_GEMM_TILES(tile) \
  tile(128, 256, 32, 64, 64, 4)   \
  tile(128, 128, 32, 64, 64, 3)   \
  tile(128, 64, 32, 64, 32, 4)    \
  tile(64, 128, 32, 32, 64, 4)    \
  tile(64, 64, 64, 32, 32, 3)     \
  tile(32, 64, 64, 16, 32, 4)     \
  tile(16, 64, 64, 16, 16, 4)     \
  tile(16, 32, 64, 16, 16, 6)
// clang-format on

}  // namespace westwind
