// Working memory of ops: one growing, 64-byte aligned buffer per thread and slot, kept between calls.
#pragma once
#include <stdint.h>

namespace westwind {

enum class Slot { kPackA, kPackB, kBlock, kRows, kShared, kCount };

// At least `bytes`, uninitialised; valid until the same thread asks for the slot again. Ends the process if there is
// none.
void* scratch(Slot slot, int64_t bytes);

}  // namespace westwind
