#include "params/rope.h"

#include <math.h>

#include <algorithm>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {

void add_rope_names(Names& out) {
  for (const DType dtype : kFloats) out.push_back(kernel_of("rope", dtype));
}

Status rope(Context& context, const RopeParams& p) {
  if (p.D % 2 != 0) return fail("rope: D must be even, got %d", p.D);
  Status status = context.check_range("rope", "positions", p.positions, p.T, int64_t{1} << 31, ">= 0");
  if (!status.ok || p.T == 0 || p.D == 0 || p.heads == 0) return status;
  const int half = p.D / 2;
  RopeLaunch launch{};
  launch.p = p;
  launch.fault = context.fault();
  for (launch.first = 0; launch.first < half; launch.first += kRopePairs) {
    launch.pairs = std::min(half - launch.first, kRopePairs);
    for (int i = 0; i < launch.pairs; ++i)
      launch.frequency[i] = pow(p.theta, -static_cast<double>(launch.first + i) / half);
    const int vec = 16 / static_cast<int>(size_of(p.dtype)), rows = kRopeThreads / ((launch.pairs + vec - 1) / vec);
    const Dim grid{static_cast<unsigned>((p.T + rows - 1) / rows),
                   static_cast<unsigned>((p.heads + kRopeHeads - 1) / kRopeHeads)};
    status = context.launch(kernel_of("rope", p.dtype), {grid, kRopeThreads}, launch);
    if (!status.ok) return status;
  }
  return status;
}

}  // namespace westwind::cuda
