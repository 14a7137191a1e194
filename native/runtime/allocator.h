// Stream-ordered caching allocator of one device. A block that is given back may be handed out again at once: the
// stream is in order, so whoever gets it writes after the last reader has read. Used from one thread, but for trim().
#pragma once
#include <stdint.h>

#include <array>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "backend.h"

namespace westwind {

enum class Tag : int32_t { kWeights, kGradients, kOptimizer, kActivations, kWorkspace, kCount };
constexpr int kTags = static_cast<int>(Tag::kCount);
const char* name_of(Tag tag);

struct Block {
  char* memory;
  int64_t size;     // bytes held, a multiple of 256
  int64_t segment;  // key of the segment it was cut from
  bool used;
  Tag tag;
};

struct MemoryStats {
  std::array<int64_t, kTags> live{}, peak{};
  int64_t live_bytes = 0, peak_bytes = 0, reserved_bytes = 0;
  int64_t live_blocks = 0, device_allocations = 0;
};

class Allocator {
 public:
  explicit Allocator(Backend& backend) : backend_(backend) {}
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  // Null when the device has no room; then out_of_memory() says what holds how much. Fails when the device is broken.
  Status take(int64_t bytes, Tag tag, Block** out);
  // `jobs`: of the stream, how many have been enqueued by now. They may use the block; later ones do not.
  void give_back(Block* block, int64_t jobs);
  // Returns to the device the wholly free segments that none but the first `done` jobs of the stream use, which have
  // run. From any thread.
  void trim(int64_t done);

  MemoryStats stats() const;
  void reset_peak();
  std::string out_of_memory(int64_t bytes, Tag tag) const;

 private:
  struct BySize {
    bool operator()(const Block* a, const Block* b) const {
      return a->size != b->size ? a->size < b->size : a->memory < b->memory;
    }
  };
  struct Segment {
    char* memory;
    int64_t size;
    int64_t users = 0;  // the jobs, from the first on, that may use what was given back
  };
  Status new_segment(int64_t bytes, Block** out);
  void count(const Block& block, int sign);

  Backend& backend_;
  mutable std::mutex mutex_;
  std::map<char*, Block*> blocks_;  // all, by address, to join neighbours
  std::set<Block*, BySize> free_;
  std::map<int64_t, Segment> segments_;
  int64_t next_segment_ = 0;
  MemoryStats stats_;
};

}  // namespace westwind
