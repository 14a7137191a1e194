// What the two kernels of attention backward on Hopper share. A block owns 128 rows of two tensors (dq: of Q and dO,
// dkv: of K and V) and walks over the other two, kStep rows at a time, which a producer warp brings by TMA; each of two
// warpgroups multiplies 64 of the own rows.
#pragma once
#include "attention_sm90.cuh"
#include "dtype.h"

namespace westwind {

constexpr int kGroups = 2;  // consumer warpgroups
constexpr int kThreads = (1 + kGroups) * kWarpgroup;
constexpr int kStep = 64;
constexpr int kMaxStages = 4;
// Of each thread: 65536 registers for all of them.
constexpr int kConsumerRegisters = 224, kProducerRegisters = 56;

template <int kD_, int kStages_>
struct Shape {
  static constexpr int kD = kD_;  // columns whose products are summed; D of the tensors may be less
  static constexpr int kStages = kStages_;
  static constexpr int kChunks = (kD + kBoxColumns - 1) / kBoxColumns;
  static constexpr int kColumns = kChunks * kBoxColumns;       // of the gradients: wgmma takes whole swizzled rows
  static constexpr int kTileBytes = 64 * kChunks * kRowBytes;  // 64 rows, of the block's own side or of the other
};

// Of a block; Tile is what a tile of the other side needs beside its data.
template <class Tile>
struct Shared {
  uint64_t own, full[kMaxStages], empty[kMaxStages];
  Tile tiles[kMaxStages];
};

template <class S, class Tile>
struct Layout {
  uint32_t own, ring;
  Shared<Tile>* more;
  __device__ __forceinline__ explicit Layout(char* shared) {
    const uint32_t base = shared_address(shared), aligned = (base + 1023) & ~1023u;
    own = aligned;
    ring = own + 2 * kGroups * S::kTileBytes;
    more = reinterpret_cast<Shared<Tile>*>(shared + (aligned - base) + 2 * (kGroups + S::kStages) * S::kTileBytes);
  }
  __device__ __forceinline__ uint32_t own_tile(int32_t tensor, int32_t group) const {
    return own + (tensor * kGroups + group) * S::kTileBytes;
  }
  __device__ __forceinline__ uint32_t ring_tile(int32_t tensor, int32_t stage) const {
    return ring + (2 * stage + tensor) * S::kTileBytes;
  }
};

template <class S, class Tile>
__device__ __forceinline__ void init_barriers(Shared<Tile>& more) {
  if (threadIdx.x == 0) {
    barrier_init(shared_address(&more.own), 1);
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(shared_address(&more.full[i]), 1);
      barrier_init(shared_address(&more.empty[i]), 4 * kGroups);  // a lane of each consumer warp
    }
    fence_barrier_init();
  }
  __syncthreads();
}

// The two tensors of the block's own 128 rows. What lies past the end of the segment stays in rows that are not stored.
template <class S, class Tile>
__device__ __forceinline__ void load_own(const Layout<S, Tile>& at, const RowBoxes& a, int32_t a_head,
                                         const RowBoxes& b, int32_t b_head, int32_t row) {
  const uint32_t barrier = shared_address(&at.more->own);
  barrier_expect(barrier, 2 * kGroups * S::kTileBytes);
  for (int g = 0; g < kGroups; ++g) {
    load_run<64, S::kChunks>(a, at.own_tile(0, g), 0, 64, row + 64 * g, a_head, barrier);
    load_run<64, S::kChunks>(b, at.own_tile(1, g), 0, 64, row + 64 * g, b_head, barrier);
  }
}

// d[64, kStep] = A Bᵀ, both with rows of kD columns.
template <class S>
__device__ __forceinline__ void multiply_rows(float (&d)[kStep / 2], uint32_t a, uint32_t b) {
  const uint64_t left = wgmma_descriptor(wgmma_layout<Swizzle::k128>(), a);
  const uint64_t right = wgmma_descriptor(wgmma_layout<Swizzle::k128>(), b);
#pragma unroll
  for (int i = 0; i < S::kD / 16; ++i) {
    const uint32_t step = (i / 4 * 64 * kRowBytes + i % 4 * 32) >> 4;
    wgmma<kStep, false, false>(d, left + step, right + step, i > 0);
  }
  commit_wgmma();
}

// d[64, kColumns] += A B, B being kStep rows of kColumns columns.
template <class S>
__device__ __forceinline__ void add_product(float (&d)[S::kColumns / 2], const uint32_t (&a)[kStep / 16][4],
                                            uint32_t b) {
  const uint64_t right = wgmma_descriptor(wgmma_layout<Swizzle::k128>(kStep * kRowBytes), b);
#pragma unroll
  for (int i = 0; i < kStep / 16; ++i) wgmma<S::kColumns, true>(d, a[i], right + (i * 16 * kRowBytes >> 4), true);
  commit_wgmma();
}

__device__ __forceinline__ void pack(uint32_t (&a)[kStep / 16][4], const float (&x)[kStep / 2]) {
#pragma unroll
  for (int i = 0; i < kStep / 4; ++i) a[i / 4][i % 4] = pack_bf16(x[2 * i], x[2 * i + 1]);
}

__device__ __forceinline__ void release(uint64_t& barrier) {
  if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&barrier));
}

// Where row `row` of head `head` of dqkv begins.
__device__ __forceinline__ bf16* gradient_row(const AttentionBackwardParams& op, int32_t row, int32_t head) {
  return static_cast<bf16*>(op.dqkv) + (static_cast<int64_t>(row) * (op.Hq + 2 * op.Hkv) + head) * op.D;
}

}  // namespace westwind
