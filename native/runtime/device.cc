#include "device.h"

#include <stdlib.h>
#include <string.h>

namespace westwind {
namespace {

// WESTWIND_MEMCHECK=1: each tensor has memory of its own, so that a checker (compute-sanitizer, the address sanitizer)
// sees an element too far. The cached blocks only count then.
bool memory_of_its_own() {
  const char* value = getenv("WESTWIND_MEMCHECK");
  return value != nullptr && strcmp(value, "1") == 0;
}

}  // namespace

std::shared_ptr<Storage> Storage::create(const std::shared_ptr<Device>& device, int64_t bytes, Tag tag) {
  Block* block = device->allocator.take(bytes, tag);
  if (block == nullptr) {
    device->stream.drain();
    device->allocator.trim();
    block = device->allocator.take(bytes, tag);
    if (block == nullptr) return nullptr;
  }
  char* data = block->memory;
  const bool own = memory_of_its_own();
  if (own) {
    data = static_cast<char*>(device->backend->allocate(bytes > 0 ? bytes : 1));
    if (data == nullptr) {
      device->allocator.give_back(block);
      return nullptr;
    }
  }
  return std::shared_ptr<Storage>(new Storage(device, block, data, own ? bytes : -1));
}

Storage::~Storage() {
  if (own_bytes_ >= 0) {
    device->stream.enqueue_always(
        [data = data_, bytes = own_bytes_](Backend& backend) { backend.release(data, bytes > 0 ? bytes : 1); });
  }
  device->allocator.give_back(block_);
}

}  // namespace westwind
