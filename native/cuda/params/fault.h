// How a kernel says that its input is wrong: the first fault of a stream is kept in one cell on the device until the
// host waits. A kernel that tests its input does as report() in kernels/common/fault.cuh; a kernel whose input was
// tested by another looks at the cell first and does nothing when a fault is in it.
#pragma once
#include <stdint.h>

namespace westwind {

struct Fault {
  int32_t number;  // 0: none; else which test it was, from Context::expect_fault
  int32_t unused;
  uint64_t place;  // (index << 32 | value) of the lowest index, all ones where no place is told
};

constexpr uint64_t kNoPlace = ~uint64_t{0};

struct CheckRangeParams {
  const int32_t* values;  // [n]
  Fault* fault;
  int64_t n, limit;
  int32_t least, number;
};

}  // namespace westwind
