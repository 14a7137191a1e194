#include "scratch.h"

#include <stdio.h>
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

void* scratch(Slot slot, int64_t bytes) {
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.bytes >= bytes) return buffer.memory;
  free(buffer.memory);
  buffer.bytes = (bytes + 4095) / 4096 * 4096;
  buffer.memory = aligned_alloc(64, static_cast<size_t>(buffer.bytes));
  if (buffer.memory == nullptr) {
    fprintf(stderr, "westwind: out of memory for a working buffer of %lld bytes\n", static_cast<long long>(bytes));
    abort();
  }
  return buffer.memory;
}

}  // namespace westwind
