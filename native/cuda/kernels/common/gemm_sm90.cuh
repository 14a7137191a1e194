// gemm on Hopper, bf16 × bf16 with f32 sums: TMA brings 64 of K at a time into a ring of stages, warpgroups multiply
// from there with wgmma, whatever way the operands are stored. One block per SM goes from tile to tile; a producer warp
// loads ahead, also while the others write C. Two blocks of a cluster take tiles below each other and load half of
// their common columns of B each, for both. Limited by the tensor cores; the narrow tile (decoding) by HBM. Contract:
// ops/gemm.h
#pragma once
#include "gemm_update.cuh"
#include "mbarrier.cuh"
#include "mma.cuh"
#include "params/gemm_sm90.h"
#include "tma.cuh"
#include "vec.cuh"
#include "wgmma.cuh"

namespace westwind {
namespace {

constexpr int kBlockK = Sm90Tile::kBlockK, kRowBytes = Sm90Tile::kRowBytes;
constexpr int kPanel = Sm90Tile::kPanelBytes, kSlab = Sm90Tile::kSlabBytes;
constexpr int kGroupRows = 2048;  // of C: tiles are taken column by column within, so that 132 share A and B in L2

// The tile's numbers, worked out at compile time.
template <Sm90Tile kTile>
struct Sizes {
  static constexpr int kBlockM = kTile.block_m(), kBytesA = kTile.a_bytes(), kStage = kTile.stage_bytes();
};

// Behind the stages: two slabs for each consumer, then the barriers.
template <Sm90Tile kTile>
struct Shared {
  uint32_t stages, slabs, full, empty, arrived;
  __device__ explicit Shared(const void* memory) {
    stages = (shared_address(memory) + 1023) & ~1023u;
    slabs = stages + kTile.stages * Sizes<kTile>::kStage;
    full = slabs + kTile.consumers * 2 * kSlab;
    empty = full + 8 * kTile.stages;
    arrived = empty + 8 * kTile.stages;
  }
};

// A place in the ring of stages, as addresses that go on by constants.
template <Sm90Tile kTile>
struct Place {
  static constexpr uint32_t kStep = Sizes<kTile>::kStage >> 4;
  uint32_t full, end;  // this stage's barrier; the one behind the last
  uint32_t stage;      // in units of 16 bytes, as wgmma's descriptors have it
  uint32_t parity;     // of the round

  __device__ Place(const Shared<kTile>& shared, uint32_t first_parity)
      : full(shared.full), end(shared.empty), stage(shared.stages >> 4), parity(first_parity) {}
  __device__ __forceinline__ uint32_t empty() const { return full + 8 * kTile.stages; }
  __device__ __forceinline__ void advance() {
    full += 8, stage += kStep;
    if (full == end) full -= 8 * kTile.stages, stage -= kTile.stages * kStep, parity ^= 1;
  }
};

// What a block does next: a tile of C, and chunks of K.
template <Sm90Tile kTile>
struct Work {
  int item, items, step;
  int m, n, sum;  // first row, first column, number of the sum
  int k, k_end;

  __device__ Work(const GemmSm90Params& p, uint32_t rank)
      : item(blockIdx.x / kTile.cluster), items(p.tiles_m * p.tiles_n * p.sums), step(gridDim.x / kTile.cluster) {
    if (any()) place(p, rank);
  }
  __device__ bool any() const { return item < items; }
  __device__ void next(const GemmSm90Params& p, uint32_t rank) {
    item += step;
    if (any()) place(p, rank);
  }

 private:
  __device__ void place(const GemmSm90Params& p, uint32_t rank) {
    constexpr int kGroup = kGroupRows / (Sizes<kTile>::kBlockM * kTile.cluster);
    const int tiles = p.tiles_m * p.tiles_n;
    const int tile = item % tiles;
    const int first = tile / (kGroup * p.tiles_n) * kGroup;
    const int rows = min(p.tiles_m - first, kGroup), in_group = tile % (kGroup * p.tiles_n);
    m = ((first + in_group % rows) * kTile.cluster + static_cast<int>(rank)) * Sizes<kTile>::kBlockM;
    n = in_group / rows * kTile.block_n;
    sum = item / tiles;
    k = sum * p.chunk;
    k_end = p.sums == 1 ? p.K : min(p.K, k + p.chunk);
  }
};

// One tile of an operand: `rows` rows at `row`, 64 of K at k.
template <bool kTrans, int kRows, int kCluster>
__device__ __forceinline__ void load_tile(uint32_t to, const CUtensorMap& map, int row, int k, uint32_t barrier) {
  if constexpr (!kTrans) {
    if constexpr (kCluster == 1)
      tma_load(to, &map, k, row, barrier);
    else
      tma_load_multicast(to, &map, k, row, barrier, (1 << kCluster) - 1);
  } else {
#pragma unroll
    for (int i = 0; i < kRows / 64; ++i) {
      if constexpr (kCluster == 1)
        tma_load(to + i * kPanel, &map, row + 64 * i, k, barrier);
      else
        tma_load_multicast(to + i * kPanel, &map, row + 64 * i, k, barrier, (1 << kCluster) - 1);
    }
  }
}

template <Sm90Tile kTile, bool kTransA, bool kTransB>
__device__ __forceinline__ void produce(const GemmSm90Params& p, const Shared<kTile>& shared, uint32_t rank) {
  constexpr int kShareN = kTile.block_n / kTile.cluster;  // columns of B that this block loads
  Place<kTile> place(shared, 1);
  for (Work<kTile> work(p, rank); work.any(); work.next(p, rank)) {
    for (int k = work.k; k < work.k_end; k += kBlockK, place.advance()) {
      const uint32_t a = place.stage << 4, b = a + Sizes<kTile>::kBytesA + rank * kShareN * kRowBytes;
      barrier_wait(place.empty(), place.parity);
      barrier_expect(place.full, Sizes<kTile>::kStage);
      load_tile<kTransA, Sizes<kTile>::kBlockM, 1>(a, p.a, work.m, k, place.full);
      load_tile<!kTransB, kShareN, kTile.cluster>(b, p.b, work.n + rank * kShareN, k, place.full);
    }
  }
}

// The descriptor of an operand at `address` (in units of 16 bytes), j steps of 16 along K from its start. Sums in its
// lower half alone: of 64 bits, each would be two instructions.
template <bool kKMajor>
__device__ __forceinline__ uint64_t operand(uint32_t address, int j) {
  constexpr uint64_t kLayout = wgmma_layout<Swizzle::k128>(kPanel), kHigh = kLayout >> 32 << 32;
  const uint32_t low = address + static_cast<uint32_t>(kLayout);
  return kHigh | (kKMajor ? low | j * 2 : low + j * kRowBytes);  // 32 of a row's 128 bytes, or 16 rows
}

// One chunk: acc = op(A) · op(B), from `place` on.
template <Sm90Tile kTile, bool kTransA, bool kTransB>
__device__ __forceinline__ void multiply(float (&acc)[kTile.block_n / 2], Place<kTile>& place, int warpgroup,
                                         int blocks) {
  const int lane = threadIdx.x % 32;
  const auto start = [&](bool first) {
    const uint32_t a = place.stage + (warpgroup * kPanel >> 4), b = place.stage + (Sizes<kTile>::kBytesA >> 4);
    barrier_wait(place.full, place.parity);
    fence_wgmma();
#pragma unroll
    for (int j = 0; j < kBlockK / 16; ++j) {
      wgmma<kTile.block_n, kTransA, !kTransB>(acc, operand<!kTransA>(a, j), operand<kTransB>(b, j), !first || j > 0);
    }
    commit_wgmma();
  };
  const auto release = [&](uint32_t empty) {
    if constexpr (kTile.cluster == 1) {
      if (lane == 0) barrier_arrive(empty);
    } else {
      if (lane < kTile.cluster) barrier_arrive_at(empty, lane);
    }
  };
  start(true);
  for (int block = 1; block < blocks; ++block) {
    const uint32_t before = place.empty();
    place.advance();
    start(false);
    wait_wgmma<1>();
    release(before);
  }
  wait_wgmma<0>();
  release(place.empty());
  place.advance();
}

__device__ __forceinline__ float2 load_shared_pair(uint32_t address) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ void store_shared_pair(uint32_t address, float2 x) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(x.x), "f"(x.y) : "memory");
}

// Which slab of a warpgroup is next, and which phase its old values arrive in.
struct Slabs {
  uint32_t slot = 0, parities = 0;
};

// A consumer's way of C: rows [m, m + 64), columns from n on, of one sum. By slabs in shared memory, for in registers
// the columns of a row are spread over four lanes.
template <class T, Sm90Tile kTile>
struct Output {
  static constexpr int kColumns = kRowBytes / sizeof(T);  // of a slab
  static constexpr int kSlabs = kTile.block_n / kColumns;
  const GemmSm90Params& p;
  uint32_t memory, arrived;  // of this warpgroup: two slabs, two barriers
  int warpgroup, m, n, sum;
  float alpha, beta;

  // Has the old C of the first slabs brought while the product is made. written_before: by this kernel.
  __device__ __forceinline__ void prefetch(const Slabs& slabs, bool written_before) const {
    if (beta == 0.f || !p.by_tma || !leads()) return;
    if (written_before) {
      tma_store_wait<0>();
      fence_async_global();
    } else {
      tma_store_wait_read<0>();
    }
    load_slab(0, slabs.slot);
    load_slab(1, slabs.slot ^ 1);
  }

  // Scales acc first where there is no old C.
  __device__ __forceinline__ void store(float (&acc)[kTile.block_n / 2], Slabs& slabs) const {
    if (beta == 0.f && alpha != 1.f) {
#pragma unroll
      for (float& sum : acc) sum *= alpha;
    }
#pragma unroll
    for (int s = 0; s < kSlabs; ++s) {
      if (n + s * kColumns >= p.N) break;
      const uint32_t slot = slabs.slot, slab = memory + slot * kSlab;
      if (beta != 0.f) {
        barrier_wait(arrived + 8 * slot, slabs.parities >> slot & 1);
        slabs.parities ^= 1u << slot;
      } else {
        if (leads()) tma_store_wait_read<1>();
        sync();
      }
      beta == 0.f ? fill<false>(acc + s * kColumns / 2, slab) : fill<true>(acc + s * kColumns / 2, slab);
      fence_async_shared();
      sync();
      slabs.slot ^= 1;
      if (!leads()) continue;
      tma_store(&p.c, n + s * kColumns, m, sum, slab);
      tma_store_commit();
      if (beta != 0.f && s + 2 < kSlabs) {
        tma_store_wait_read<0>();
        load_slab(s + 2, slot);
      }
    }
  }

  // Where C is not on 16-byte boundaries: from registers, element by element.
  __device__ __forceinline__ void store_unaligned(const float (&acc)[kTile.block_n / 2]) const {
    const int lane = threadIdx.x % 32, row = m + threadIdx.x % 128 / 32 * 16 + lane / 4,
              columns = p.N - n - lane % 4 * 2;
    T* c = static_cast<T*>(p.out) + sum * p.sum_stride + row * p.ldc + p.N - columns;
#pragma unroll
    for (int below = 0; below < 2; ++below, c += 8 * p.ldc) {
      if (row + 8 * below >= p.M) break;
#pragma unroll
      for (int g = 0; g < kTile.block_n / 8; ++g) {
#pragma unroll
        for (int right = 0; right < 2; ++right) {
          if (8 * g + right >= columns) continue;
          T* at = c + 8 * g + right;
          const float product = acc[4 * g + 2 * below + right];
          *at = from_f32<T>(updated(product, alpha, beta, beta == 0.f ? 0.f : to_f32(*at)));
        }
      }
    }
  }

 private:
  __device__ __forceinline__ bool leads() const { return threadIdx.x % 128 == 0; }
  __device__ __forceinline__ void sync() const { sync_threads(1 + warpgroup, 128); }
  template <bool kUpdate>
  __device__ __forceinline__ float value(float product, float old) const {
    return kUpdate ? updated(product, alpha, beta, old) : product;
  }
  __device__ __forceinline__ void load_slab(int s, uint32_t slot) const {
    if (s >= kSlabs || n + s * kColumns >= p.N) return;
    barrier_expect(arrived + 8 * slot, kSlab);
    tma_load(memory + slot * kSlab, &p.c, n + s * kColumns, m, sum, arrived + 8 * slot);
  }

  // The slab's share of acc, combined with the old values that lie there if beta is not 0 (kUpdate). 128-byte swizzle.
  template <bool kUpdate>
  __device__ __forceinline__ void fill(const float* acc, uint32_t slab) const {
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x % 128 / 32 * 16;
    if constexpr (sizeof(T) == 2) {
      // Four 8 × 8 matrices at a time: upper and lower rows, of two groups of 8 columns.
      const uint32_t at = slab + (warp_row + lane % 16) * kRowBytes + ((lane / 16 ^ lane % 8) << 4);
#pragma unroll
      for (int g = 0; g < 8; g += 2) {
        uint32_t pairs[4] = {};
        if constexpr (kUpdate) ldmatrix_x4(pairs, at ^ g << 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* x = acc + 4 * g + 2 * i;
          pairs[i] = pack_bf16(value<kUpdate>(x[0], __uint_as_float(pairs[i] << 16)),
                               value<kUpdate>(x[1], __uint_as_float(pairs[i] & 0xffff0000u)));
        }
        stmatrix_x4(at ^ g << 4, pairs);
      }
    } else {
      // Odd rows are two groups of 8 columns ahead: then 4 rows of 32 bytes fall on all banks.
      const bool odd = lane & 4;
      const uint32_t at =
          slab + (warp_row + lane / 4) * kRowBytes + ((lane % 4 / 2 ^ lane / 4 ^ (odd ? 4 : 0)) << 4) + lane % 2 * 8;
#pragma unroll
      for (int g = 0; g < 4; ++g) {
#pragma unroll
        for (int below = 0; below < 2; ++below) {
          const float *x = acc + 4 * g + 2 * below, *y = acc + 4 * (g ^ 2) + 2 * below;
          const uint32_t place = (at ^ g << 5) + below * 8 * kRowBytes;
          const float2 old = kUpdate ? load_shared_pair(place) : float2{};
          store_shared_pair(place,
                            {value<kUpdate>(odd ? y[0] : x[0], old.x), value<kUpdate>(odd ? y[1] : x[1], old.y)});
        }
      }
    }
  }
};

template <Sm90Tile kTile, bool kTransA, bool kTransB>
__device__ __forceinline__ void consume(const GemmSm90Params& p, const Shared<kTile>& shared, uint32_t rank,
                                        int warpgroup) {
  const uint32_t memory = shared.slabs + warpgroup * 2 * kSlab, arrived = shared.arrived + 16 * warpgroup;
  Place<kTile> place(shared, 0);
  Slabs slabs;
  for (Work<kTile> work(p, rank); work.any(); work.next(p, rank)) {
    const int m = work.m + 64 * warpgroup;
    for (int k = work.k; k < work.k_end; k += p.chunk) {
      const bool first = k == work.k;
      const float beta = first ? p.beta : 1.f;
      const Output<bf16, kTile> narrow{p, memory, arrived, warpgroup, m, work.n, work.sum, p.alpha, beta};
      const Output<float, kTile> wide{p, memory, arrived, warpgroup, m, work.n, work.sum, p.alpha, beta};
      if (m < p.M) p.c_is_bf16 ? narrow.prefetch(slabs, !first) : wide.prefetch(slabs, !first);
      float acc[kTile.block_n / 2];
      const int depth = min(p.chunk, work.k_end - k);
      multiply<kTile, kTransA, kTransB>(acc, place, warpgroup, (depth + kBlockK - 1) / kBlockK);
      if (m >= p.M) continue;
      if (p.by_tma) {
        p.c_is_bf16 ? narrow.store(acc, slabs) : wide.store(acc, slabs);
      } else {
        p.c_is_bf16 ? narrow.store_unaligned(acc) : wide.store_unaligned(acc);
      }
    }
  }
  if (threadIdx.x % 128 == 0) tma_store_wait<0>();
}

template <Sm90Tile kTile, bool kTransA, bool kTransB>
__device__ __forceinline__ void gemm(const GemmSm90Params& p) {
  extern __shared__ char memory[];
  const Shared<kTile> shared(memory);
  const uint32_t rank = kTile.cluster == 1 ? 0 : cluster_rank();
  static_assert(kTile.stages <= 32 && 2 * kTile.consumers <= kTile.stages);
  if (threadIdx.x < kTile.stages) {
    const uint32_t at = 8 * threadIdx.x;
    barrier_init(shared.full + at, 1);
    barrier_init(shared.empty + at, 4 * kTile.consumers * kTile.cluster);  // a warp of any block that reads its B
    if (threadIdx.x < 2 * kTile.consumers) barrier_init(shared.arrived + at, 1);
    fence_barrier_init();
  }
  if (threadIdx.x == 0) {
    tma_prefetch(&p.a);
    tma_prefetch(&p.b);
  }
  if constexpr (kTile.cluster == 1)
    __syncthreads();
  else
    cluster_sync();

  // The same in all lanes, which ptxas sees only so. What follows from it, it then keeps in uniform registers, where
  // wgmma takes descriptors from: a quarter fewer instructions in the inner loop.
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  // Registers for 384 threads are 168 each: the sums of two consumers need more.
  if (warpgroup == kTile.consumers) {
    if constexpr (kTile.consumers > 1) fewer_registers<24>();
    if (threadIdx.x % 128 == 0) produce<kTile, kTransA, kTransB>(p, shared, rank);
  } else {
    if constexpr (kTile.consumers > 1) more_registers<240>();
    consume<kTile, kTransA, kTransB>(p, shared, rank, warpgroup);
  }
  if constexpr (kTile.cluster > 1) {
    __syncwarp();
    cluster_sync();  // the other block may still write here and arrive here
  }
}

}  // namespace
}  // namespace westwind

#define WESTWIND_GEMM_SM90(tile, name, cluster, trans_a, trans_b)               \
  extern "C" __global__ void __launch_bounds__(tile.threads(), 1) cluster name( \
      const __grid_constant__ GemmSm90Params p) {                               \
    gemm<tile, trans_a, trans_b>(p);                                            \
  }
