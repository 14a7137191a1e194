// What host and kernels of Hopper's gemm agree on.
#pragma once
#include <cuda.h>
#include <stdint.h>

namespace westwind {

// C of a block: 64 rows for each consuming warpgroup. K goes by in stages of 64: 128 bytes, the widest swizzle.
struct Sm90Tile {
  int consumers, block_n, stages, cluster;  // cluster: blocks below each other that share their columns of B

  static constexpr int kBlockK = 64, kRowBytes = 128;
  static constexpr int kPanelBytes = 64 * kRowBytes;  // 64 rows of a K-major operand, or 64 of K by 64 rows
  static constexpr int kSlabRows = 64, kSlabBytes = kSlabRows * kRowBytes;  // what leaves for C at a time

  constexpr int block_m() const { return 64 * consumers; }
  constexpr int threads() const { return 128 * (consumers + 1); }
  constexpr int a_bytes() const { return block_m() * kRowBytes; }
  constexpr int stage_bytes() const { return a_bytes() + block_n * kRowBytes; }
  // Stages, two slabs a consumer, barriers; the first is moved to a boundary of 1024.
  constexpr int shared_bytes() const {
    return 1024 + stages * stage_bytes() + 2 * consumers * (kSlabBytes + 8) + 2 * stages * 8;
  }
};

constexpr Sm90Tile kSm90Large{2, 256, 4, 2}, kSm90Medium{2, 128, 6, 1}, kSm90Small{1, 64, 12, 1};
static_assert(kSm90Large.shared_bytes() <= 227 << 10 && kSm90Medium.shared_bytes() <= 227 << 10 &&
              kSm90Small.shared_bytes() <= 227 << 10);

struct alignas(128) GemmSm90Params {  // CUtensorMap asks for 64 before CUDA 13
  CUtensorMap a, b;
  CUtensorMap c;  // [sums, M, N], where by_tma
  void* out;      // C; or, where there are several, the sums
  int64_t ldc, sum_stride;
  int32_t M, N, K;
  int32_t tiles_m, tiles_n;  // of a cluster
  int32_t chunk;             // a multiple of kBlockK: so much of K is summed from 0, then added to C
  int32_t sums;              // 1: a block walks a tile's chunks. Else one for each chunk, to be added up later
  float alpha, beta;
  int32_t c_is_bf16, by_tma;
};
static_assert(sizeof(GemmSm90Params) == 512, "host and fatbin read this struct by layout");

}  // namespace westwind
