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
  if (p.V > INT32_MAX || (p.V <= 0 && p.B > 0))
    return fail("sample: logits must be [B, V] with V >= 1, got [%lld, %lld]", static_cast<long long>(p.B),
                static_cast<long long>(p.V));
  if (!(p.temperature >= 0 && p.temperature < __builtin_inff()))
    return fail("sample: temperature must be 0 or more, got %g", static_cast<double>(p.temperature));
  if (!(p.top_p > 0 && p.top_p <= 1))
    return fail("sample: top_p must be in (0, 1], got %g", static_cast<double>(p.top_p));
  if (p.top_k < 0) return fail("sample: top_k must be 0 or more, got %d", p.top_k);
  if (p.B == 0) return {};
  SampleLaunch w{p, context.fault(), 0, 0};
  w.uniform_fault = context.expect_fault("sample", "uniform must be in [0, 1)", Context::Got::kFloat);
  w.logits_fault = context.expect_fault("sample", "logits must be numbers below infinity, and not all -infinity",
                                        Context::Got::kRow);
  return context.launch(kernel_of("sample", p.dtype), {{static_cast<unsigned>(p.B)}, kThreads, kSharedBytes}, w);
}

}  // namespace westwind::cuda
