// Working memory of ops: one growing, 64-byte aligned buffer per thread and slot, kept between calls.
#pragma once
#include <stdint.h>

#include "status.h"

namespace westwind {

enum class Slot { kPackA, kPackB, kBlock, kRows, kShared, kCount };

// What a run of an op lacked; its threads share one.
struct Shortage {
  int64_t bytes = 0;
  Status status() const;  // ok unless a buffer was refused
};

// At least `bytes`, uninitialised; valid until the same thread asks for the slot again. Null where the system has no
// memory: the caller leaves its part of the work undone, and the op returns shortage.status().
void* scratch(Slot slot, int64_t bytes, Shortage& shortage);

}  // namespace westwind
