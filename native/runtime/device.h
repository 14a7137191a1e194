// A device of one JavaScript environment: backend, allocator, stream; and the storage that its tensors share.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "allocator.h"
#include "stream.h"

namespace westwind {

class Device {
 public:
  explicit Device(std::unique_ptr<Backend> made) : backend(std::move(made)), allocator(*backend), stream(*backend) {
    backend->on_no_room([this] { allocator.trim(stream.jobs_done()); });
  }

  const std::unique_ptr<Backend> backend;
  Allocator allocator;
  Stream stream;          // last: its thread ends before the memory goes
  int64_t forgotten = 0;  // tensors that the garbage collector had to dispose
  std::map<int64_t, std::shared_ptr<Recording>> recordings;
};

// Device memory, given back when the last tensor over it is disposed.
class Storage {
 public:
  // Null when the device is out of memory; or when it is broken, which `fault` tells then.
  static std::shared_ptr<Storage> create(const std::shared_ptr<Device>& device, int64_t bytes, Tag tag,
                                         std::string* fault);
  ~Storage();

  const std::shared_ptr<Device> device;
  char* data() const { return data_; }

 private:
  Storage(std::shared_ptr<Device> owner, Block* block, char* data, int64_t own_bytes)
      : device(std::move(owner)), block_(block), data_(data), own_bytes_(own_bytes) {}
  Block* const block_;
  char* const data_;
  const int64_t own_bytes_;  // -1: a piece of the cached block
};

}  // namespace westwind
