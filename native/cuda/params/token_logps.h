// What the kernels of token_logps get beside the contract.
#pragma once
#include "ops/token_logps.h"
#include "params/fault.h"

namespace westwind {

struct TokenLogpsLaunch {
  TokenLogpsParams p;
  const Fault* fault;
};
static_assert(sizeof(TokenLogpsLaunch) == 64, "host and kernel read this struct by layout");

struct TokenLogpsBackwardLaunch {
  TokenLogpsBackwardParams p;
  const Fault* fault;
};
static_assert(sizeof(TokenLogpsBackwardLaunch) == 72, "host and kernel read this struct by layout");

}  // namespace westwind
