#include "allocator.h"

#include <algorithm>

namespace westwind {
namespace {

constexpr int64_t kAlign = 256;
constexpr int64_t kSegment = int64_t{64} << 20;  // what small requests share; untouched pages of it cost nothing
constexpr int64_t kPage = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

std::string megabytes(int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

const char* name_of(Tag tag) {
  constexpr const char* kNames[kTags] = {"weights", "gradients", "optimizer", "activations", "workspace"};
  return kNames[static_cast<int>(tag)];
}

Allocator::~Allocator() {
  for (auto& [memory, block] : blocks_) delete block;
  for (auto& [id, segment] : segments_) backend_.release(segment.memory, segment.size);
}

Status Allocator::new_segment(int64_t bytes, Block** out) {
  const int64_t size = std::max(round_up(bytes, kPage), kSegment);
  if (stats_.reserved_bytes + size > backend_.capacity()) return {};
  void* memory = nullptr;
  const Status status = backend_.allocate(size, &memory);
  if (memory == nullptr) return status;
  ++stats_.device_allocations;
  stats_.reserved_bytes += size;
  auto* block = new Block{static_cast<char*>(memory), size, next_segment_, false, Tag::kWorkspace};
  segments_[next_segment_++] = {block->memory, size};
  blocks_[block->memory] = block;
  free_.insert(block);
  *out = block;
  return {};
}

Status Allocator::take(int64_t bytes, Tag tag, Block** out) {
  const std::lock_guard lock(mutex_);
  *out = nullptr;
  const int64_t size = round_up(std::max<int64_t>(bytes, 1), kAlign);
  Block key{nullptr, size, 0, false, tag};
  auto found = free_.lower_bound(&key);
  if (found == free_.end()) {
    Block* fresh = nullptr;
    const Status status = new_segment(size, &fresh);
    if (fresh == nullptr) return status;
    found = free_.find(fresh);
  }
  Block* block = *found;
  free_.erase(found);
  if (block->size > size) {
    auto* rest = new Block{block->memory + size, block->size - size, block->segment, false, tag};
    block->size = size;
    blocks_[rest->memory] = rest;
    free_.insert(rest);
  }
  block->used = true;
  block->tag = tag;
  count(*block, 1);
  *out = block;
  return {};
}

void Allocator::give_back(Block* block, int64_t jobs) {
  const std::lock_guard lock(mutex_);
  segments_.at(block->segment).users = jobs;
  count(*block, -1);
  block->used = false;
  const auto here = blocks_.find(block->memory);
  const auto next = std::next(here);
  if (next != blocks_.end() && !next->second->used && next->second->segment == block->segment) {
    free_.erase(next->second);
    block->size += next->second->size;
    delete next->second;
    blocks_.erase(next);
  }
  if (here != blocks_.begin()) {
    const auto before = std::prev(here);
    if (!before->second->used && before->second->segment == block->segment) {
      free_.erase(before->second);
      before->second->size += block->size;
      blocks_.erase(here);
      delete block;
      block = before->second;
    }
  }
  free_.insert(block);
}

void Allocator::trim(int64_t done) {
  const std::lock_guard lock(mutex_);
  for (auto it = free_.begin(); it != free_.end();) {
    Block* block = *it;
    const auto segment = segments_.find(block->segment);
    if (block->size != segment->second.size || segment->second.users > done) {
      ++it;
      continue;
    }
    it = free_.erase(it);
    backend_.release(block->memory, block->size);
    stats_.reserved_bytes -= block->size;
    blocks_.erase(block->memory);
    segments_.erase(segment);
    delete block;
  }
}

void Allocator::count(const Block& block, int sign) {
  const int tag = static_cast<int>(block.tag);
  stats_.live[tag] += sign * block.size;
  stats_.live_bytes += sign * block.size;
  stats_.live_blocks += sign;
  stats_.peak[tag] = std::max(stats_.peak[tag], stats_.live[tag]);
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.live_bytes);
}

MemoryStats Allocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Allocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak = stats_.live;
  stats_.peak_bytes = stats_.live_bytes;
}

std::string Allocator::out_of_memory(int64_t bytes, Tag tag) const {
  const std::lock_guard lock(mutex_);
  std::string text = "no room for " + megabytes(bytes) + " of " + name_of(tag) + ": the device has " +
                     megabytes(backend_.capacity()) + ", in use " + megabytes(stats_.live_bytes) + " (";
  for (int i = 0; i < kTags; ++i) {
    text += std::string(i ? ", " : "") + name_of(static_cast<Tag>(i)) + " " + megabytes(stats_.live[i]);
  }
  text += "), cached " + megabytes(stats_.reserved_bytes - stats_.live_bytes);
  const int64_t working = backend_.workspace_bytes();
  if (working > 0) text += ", working memory of the ops " + megabytes(working);
  return text;
}

}  // namespace westwind
