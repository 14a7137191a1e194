#include "check_arguments.h"

namespace westwind {

Status check_arguments(const SampleParams& p) {
  if (p.B < 0 || p.V < 0 || p.V > INT32_MAX || (p.V == 0 && p.B > 0))
    return fail("sample: logits must be [B, V] with V >= 1, got [%lld, %lld]", static_cast<long long>(p.B),
                static_cast<long long>(p.V));
  if (!(p.temperature >= 0 && p.temperature < __builtin_inff()))
    return fail("sample: temperature must be 0 or more, got %g", static_cast<double>(p.temperature));
  if (!(p.top_p > 0 && p.top_p <= 1))
    return fail("sample: top_p must be in (0, 1], got %g", static_cast<double>(p.top_p));
  if (p.top_k < 0) return fail("sample: top_k must be 0 or more, got %d", p.top_k);
  return {};
}

}  // namespace westwind
