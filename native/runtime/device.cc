#include "device.h"

#include <stdlib.h>

namespace westwind {

std::shared_ptr<Storage> Storage::create(const std::shared_ptr<Device>& device, int64_t bytes, Tag tag) {
  Block* block = device->allocator.take(bytes, tag);
  if (block == nullptr) {
    device->stream.drain();
    device->allocator.trim();
    block = device->allocator.take(bytes, tag);
    if (block == nullptr) return nullptr;
  }
  char* data = block->memory;
#ifdef WESTWIND_SANITIZE
  data = static_cast<char*>(malloc(static_cast<size_t>(bytes > 0 ? bytes : 1)));  // exact bounds; the block only counts
#endif
  return std::shared_ptr<Storage>(new Storage(device, block, data));
}

Storage::~Storage() {
#ifdef WESTWIND_SANITIZE
  device->stream.enqueue({"dispose"}, [data = data_](Backend&) {
    free(data);
    return Status{};
  });
#endif
  device->allocator.give_back(block_);
}

}  // namespace westwind
