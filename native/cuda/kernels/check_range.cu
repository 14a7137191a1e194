// Looks for the first number of a list that is not in least .. limit − 1: row numbers and targets, before a kernel
// follows them. Reads 4 bytes a number.
#include "common/fault.cuh"

using namespace westwind;

extern "C" __global__ void __launch_bounds__(256) check_range(const __grid_constant__ CheckRangeParams p) {
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < p.n; i += gridDim.x * int64_t{256}) {
    const int32_t value = p.values[i];
    if (value < p.least || value >= p.limit) report(p.fault, p.number, static_cast<uint64_t>(i), value);
  }
}
