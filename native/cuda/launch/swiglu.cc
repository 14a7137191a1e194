#include <algorithm>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr int64_t kMostThreads = 256;

// A block for a stretch of a row, the stretches of about the same length.
Launch stretches(int64_t T, int64_t F, DType dtype) {
  const int64_t groups = (F * size_of(dtype) + 15) / 16;
  const int64_t blocks = (groups + kMostThreads - 1) / kMostThreads;
  const int64_t threads = ((groups + blocks - 1) / blocks + 31) / 32 * 32;
  return {{static_cast<unsigned>(T), static_cast<unsigned>(blocks)}, static_cast<unsigned>(threads)};
}

}  // namespace

void add_swiglu_names(Names& out) {
  for (const DType dtype : kFloats)
    out.insert(out.end(), {kernel_of("swiglu", dtype), kernel_of("swiglu_backward", dtype)});
}

Status swiglu(Context& context, const SwigluParams& p) {
  if (p.T == 0 || p.F == 0) return {};
  return context.launch(kernel_of("swiglu", p.dtype), stretches(p.T, p.F, p.dtype), p);
}

Status swiglu_backward(Context& context, const SwigluBackwardParams& p) {
  if (p.T == 0 || p.F == 0) return {};
  return context.launch(kernel_of("swiglu_backward", p.dtype), stretches(p.T, p.F, p.dtype), p);
}

}  // namespace westwind::cuda
