#include "scratch.h"

#include <stdlib.h>

namespace westwind {
namespace {

struct Buffer {
  void* memory = nullptr;
  int64_t bytes = 0;
  ~Buffer() { free(memory); }
};

thread_local Buffer buffers[static_cast<int>(Slot::kCount)];

}  // namespace

Status Shortage::status() const {
  if (bytes == 0) return {};
  return fail("no memory for a working buffer of %lld bytes", static_cast<long long>(bytes));
}

void* scratch(Slot slot, int64_t bytes, Shortage& shortage) {
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.memory != nullptr && buffer.bytes >= bytes) return buffer.memory;
  free(buffer.memory);
  buffer.bytes = bytes < 1 ? 4096 : (bytes + 4095) / 4096 * 4096;
  buffer.memory = aligned_alloc(64, static_cast<size_t>(buffer.bytes));
  if (buffer.memory == nullptr) __atomic_store_n(&shortage.bytes, buffer.bytes, __ATOMIC_RELAXED);
  return buffer.memory;
}

}  // namespace westwind
