#include "check_arguments.h"
#include "names.h"
#include "ops.h"
#include "params/decode.h"

namespace westwind::cuda {
namespace {

constexpr unsigned kThreads = 512;
constexpr unsigned kSharedBytes = 16 * kThreads * 8 + 512;  // 16 f64 sums for each thread, and what warps exchange

}  // namespace

void add_sample_names(Names& out) {
  for (const DType dtype : kFloats) out.push_back(kernel_of("sample", dtype));
}

Status sample(Context& context, const SampleParams& p) {
  const Status status = check_arguments(p);
  if (!status.ok || p.B == 0) return status;
  SampleLaunch w{p, context.fault(), 0, 0};
  w.uniform_fault = context.expect_fault("sample", "uniform must be in [0, 1)", Context::Got::kFloat);
  w.logits_fault = context.expect_fault("sample", "logits must be numbers below infinity, and not all -infinity",
                                        Context::Got::kRow);
  return context.launch(kernel_of("sample", p.dtype), {{static_cast<unsigned>(p.B)}, kThreads, kSharedBytes}, w);
}

}  // namespace westwind::cuda
