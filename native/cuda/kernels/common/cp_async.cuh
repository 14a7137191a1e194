// cp.async: global to shared memory without a register in between. Copies land when their group has been waited for,
// and other threads see them after a barrier behind that wait.
#pragma once
#include <stdint.h>

namespace westwind {

// The address of shared memory as the instructions take it.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Bytes [0, valid) from `from`, zeros for the rest of Bytes; both on a boundary of Bytes. With valid == 0, `from` is
// not read but must still be an address: pass the base of the tensor. 16 bytes go past the first-level cache.
template <int Bytes>
__device__ __forceinline__ void cp_async(uint32_t to, const void* from, int valid = Bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(Bytes), "r"(valid)
                 : "memory");
  }
}
// All 16 bytes, to kAfter bytes behind `to`.
template <int kAfter>
__device__ __forceinline__ void cp_async_16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0+%2], [%1], 16;" ::"r"(to), "l"(from), "n"(kAfter) : "memory");
}
__device__ __forceinline__ void cp_async_16(uint32_t to, const void* from, bool valid) {
  cp_async<16>(to, from, valid ? 16 : 0);
}
__device__ __forceinline__ void cp_async_8(uint32_t to, const void* from, bool valid) {
  cp_async<8>(to, from, valid ? 8 : 0);
}
__device__ __forceinline__ void cp_async_4(uint32_t to, const void* from, bool valid) {
  cp_async<4>(to, from, valid ? 4 : 0);
}

// Closes this thread's group of copies: an empty one counts too.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are on their way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace westwind
