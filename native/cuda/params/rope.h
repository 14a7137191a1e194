// What the kernel of rope gets beside the contract.
#pragma once
#include "ops/rope.h"
#include "params/fault.h"

namespace westwind {

constexpr int kRopePairs = 256;    // of one launch: D = 512, and more launches beyond
constexpr int kRopeThreads = 128;  // of a block
constexpr int kRopeHeads = 8;      // of a thread, at most

struct RopeLaunch {
  RopeParams p;
  const Fault* fault;
  int32_t first, pairs;          // the pairs of this launch: first <= i < first + pairs, first in whole kRopePairs
  double frequency[kRopePairs];  // theta^(−2i/D) of those pairs, 0 behind them
};
static_assert(sizeof(RopeLaunch) == 2120, "host and kernel read this struct by layout");

}  // namespace westwind
