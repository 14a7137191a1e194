// How elements that do not depend on each other are spread over the GPU.
#pragma once
#include <algorithm>

#include "context.h"

namespace westwind::cuda {

// Blocks of 256 threads that loop over n elements: 16 bytes of bf16 a thread and turn, and enough blocks to keep HBM
// busy.
inline Launch spread(const Context& context, int64_t n) {
  constexpr int64_t kThreads = 256, kPerThread = 8, kBlocksPerSm = 16;
  const int64_t blocks = (n + kThreads * kPerThread - 1) / (kThreads * kPerThread);
  const int64_t most = context.facts().sms * kBlocksPerSm;
  return {{static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, most))}, static_cast<unsigned>(kThreads)};
}

}  // namespace westwind::cuda
