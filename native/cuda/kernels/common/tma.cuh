// Tile copies between global and shared memory by the tensor memory accelerator (PTX ISA, "cp.async.bulk.tensor"). One
// thread issues for the block. Coordinates are elements, innermost first, may be negative or past the end (loads fill
// with zeros, stores leave out). The 128-byte swizzle goes by address bits 7 to 9, so a tile that wgmma reads starts on
// a 1024-byte boundary (512 and 256 for the narrower swizzles); a box of some of its rows may start at any of them.
#pragma once
#include <cuda.h>
#include <stdint.h>

namespace westwind {

// Needs the address of a __grid_constant__ parameter (or of global memory), 64-byte aligned.
__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Tile to shared memory; its bytes count at `barrier`.
__device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap* map, int32_t x, int32_t y, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap* map, int32_t x, int32_t y, int32_t z,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

// The same tile to the same place in every block of the cluster whose bit is in `blocks`; the bytes count at the
// barrier of the same address in each.
__device__ __forceinline__ void tma_load_multicast(uint32_t to, const CUtensorMap* map, int32_t x, int32_t y,
                                                   uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(blocks)
      : "memory");
}

// What ordinary stores wrote to shared memory becomes visible to TMA and wgmma: each thread that wrote, then a barrier.
__device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// What TMA wrote to global memory, and this thread waited for, is read by TMA again.
__device__ __forceinline__ void fence_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

__device__ __forceinline__ void tma_store(const CUtensorMap* map, int32_t x, int32_t y, int32_t z, uint32_t from) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map),
               "r"(x), "r"(y), "r"(z), "r"(from)
               : "memory");
}
__device__ __forceinline__ void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// At most kPending groups of this thread still read shared memory.
template <int kPending>
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
// At most kPending groups of this thread are not yet in global memory.
template <int kPending>
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace westwind
