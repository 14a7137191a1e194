// What a stream was told to do once, to be done again: a decoding step, whose ops differ in nothing but the contents of
// their tensors. Doing it again costs one job instead of hundreds, and on a GPU one launch (a CUDA graph).
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "backend.h"

namespace westwind {

class Storage;

struct Recording {
  RecordedJobs jobs;
  // What the jobs read and write stays where it is. Touched by the owner's thread alone, as the allocator is.
  std::vector<std::shared_ptr<Storage>> storages;
  std::shared_ptr<void> compiled;  // what the backend made of the jobs; of the stream thread
};

}  // namespace westwind
