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

std::shared_ptr<Storage> Storage::create(const std::shared_ptr<Device>& device, int64_t bytes, Tag tag,
                                         std::string* fault) {
  Allocator& allocator = device->allocator;
  Stream& stream = device->stream;
  Block* block = nullptr;
  Status status = allocator.take(bytes, tag, &block);
  if (status.ok && block == nullptr) {
    stream.drain();
    allocator.trim(stream.jobs_enqueued());
    status = allocator.take(bytes, tag, &block);
  }
  const bool own = memory_of_its_own();
  void* data = block != nullptr ? block->memory : nullptr;
  if (block != nullptr && own) {
    status = device->backend->allocate(bytes > 0 ? bytes : 1, &data);
    if (data == nullptr) allocator.give_back(block, stream.jobs_enqueued());
  }
  if (!status.ok) *fault = stream.tell({"allocation", {{"bytes", bytes}}}, status);
  if (data == nullptr) return nullptr;
  return std::shared_ptr<Storage>(new Storage(device, block, static_cast<char*>(data), own ? bytes : -1));
}

Storage::~Storage() {
  if (own_bytes_ >= 0) {
    device->stream.enqueue_always(
        [data = data_, bytes = own_bytes_](Backend& backend) { backend.release(data, bytes > 0 ? bytes : 1); });
  }
  device->allocator.give_back(block_, device->stream.jobs_enqueued());
}

}  // namespace westwind
