#include "params/token_logps.h"

#include <limits>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr int64_t kStretch = 1024;    // groups of 16 bytes that a block of backward takes
constexpr int64_t kWarpGroups = 128;  // up to this many in a row, a warp is enough

Status check_targets(Context& context, const char* op, const int32_t* target, int64_t T, int64_t V) {
  return context.check_range(op, "target", target, T, V, "below V=%lld", std::numeric_limits<int32_t>::min());
}

int64_t groups(int64_t V, DType dtype) { return (V * size_of(dtype) + 15) / 16; }

std::string forward_kernel(DType dtype, bool warp) { return kernel_of("token_logps", dtype, warp ? "_warp" : ""); }

}  // namespace

void add_token_logps_names(Names& out) {
  for (const DType dtype : kFloats)
    out.insert(out.end(),
               {forward_kernel(dtype, false), forward_kernel(dtype, true), kernel_of("token_logps_backward", dtype)});
}

Status token_logps(Context& context, const TokenLogpsParams& p) {
  const Status status = check_targets(context, "token_logps", p.target, p.T, p.V);
  if (!status.ok || p.T == 0) return status;
  const bool warp = groups(p.V, p.dtype) <= kWarpGroups;
  return context.launch(forward_kernel(p.dtype, warp), {{static_cast<unsigned>(p.T)}, warp ? 32u : 256u},
                        TokenLogpsLaunch{p, context.fault()});
}

Status token_logps_backward(Context& context, const TokenLogpsBackwardParams& p) {
  const Status status = check_targets(context, "token_logps_backward", p.target, p.T, p.V);
  if (!status.ok || p.T == 0 || p.V == 0) return status;
  const int64_t all = groups(p.V, p.dtype);
  const Launch how{{static_cast<unsigned>(p.T), static_cast<unsigned>((all + kStretch - 1) / kStretch)},
                   all <= kWarpGroups ? 32u : 256u};
  return context.launch(kernel_of("token_logps_backward", p.dtype), how, TokenLogpsBackwardLaunch{p, context.fault()});
}

}  // namespace westwind::cuda
