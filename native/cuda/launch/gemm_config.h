// Which gemm kernel multiplies what, and how: a pure function, so that a machine without a GPU tests every choice.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "params/gemm.h"

namespace westwind {

// What a choice may look at.
struct GemmShape {
  int64_t M, N, K;
  bool trans_a, trans_b;
  bool tensor_cores;  // bf16 operands whose bases and row strides are multiples of 16 bytes
  bool ragged;        // the rows of one of them end within 16 bytes
  bool f32_out;
};

struct GemmConfig {
  std::string kernel;
  int block_m, block_n, block_k, stages, threads;
  int shared_bytes;  // dynamic
  int64_t chunk;     // products summed before C is touched; a multiple of block_k
  int64_t split;     // blocks along K, each with one chunk; 1: a block walks all chunks
  int cluster = 0;   // blocks of a cluster, whose tile block_m × block_n is; 0: not a kernel of gemm_sm90
};

// Bits depend on the family of kernels (tensor cores or not), on K and on the type of C, and on nothing else: every
// tile of a family sums the same products in the same order. So the shape may choose the tile and the split.
GemmConfig choose_gemm(const GemmShape& shape, int arch, int sms, int shared_bytes);

// The kernels that it may choose.
std::vector<std::string> gemm_kernels();

// For the families: products in a chunk, whether each chunk may have its block, and what adding their sums takes then.
int64_t chunk_of(const GemmShape& shape);
bool may_split(const GemmShape& shape);
double reduce_clocks(const GemmShape& shape, int sms);

}  // namespace westwind
