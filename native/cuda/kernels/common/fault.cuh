// Telling the host that an input is wrong: params/fault.h.
#pragma once
#include "params/fault.h"

namespace westwind {

// The first test of a stream that fails keeps the cell; of one test, the lowest index.
__device__ __forceinline__ void report(Fault* fault, int32_t number, uint64_t index, int32_t value) {
  const int32_t before = atomicCAS(&fault->number, 0, number);
  if (before != 0 && before != number) return;
  atomicMin(reinterpret_cast<unsigned long long*>(&fault->place),
            static_cast<unsigned long long>(index << 32 | static_cast<uint32_t>(value)));
}

__device__ __forceinline__ bool faulty(const Fault* fault) {
  return *reinterpret_cast<const volatile int32_t*>(&fault->number) != 0;
}

}  // namespace westwind
