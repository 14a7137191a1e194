#include "names.h"
#include "ops.h"
#include "spread.h"

namespace westwind::cuda {
namespace {

const char* fill_kernel(DType dtype) { return dtype == DType::kBf16 ? "fill_16" : "fill_32"; }
const char* cast_kernel(DType from) { return from == DType::kF32 ? "cast_f32_to_bf16" : "cast_bf16_to_f32"; }

}  // namespace

void add_elementwise_names(Names& out) {
  for (const DType dtype : kFloats)
    out.insert(out.end(), {fill_kernel(dtype), kernel_of("scale", dtype), kernel_of("add", dtype), cast_kernel(dtype)});
}

Status fill(Context& context, const FillParams& p) {
  if (p.dtype == DType::kI32 && !(p.value >= -2147483648.f && p.value < 2147483648.f))
    return fail("fill: value must fit i32, got %g", static_cast<double>(p.value));
  if (p.n == 0) return {};
  return context.launch(fill_kernel(p.dtype), spread(context, p.n), p);
}

Status scale(Context& context, const ScaleParams& p) {
  if (p.n == 0) return {};
  return context.launch(kernel_of("scale", p.dtype), spread(context, p.n), p);
}

Status add(Context& context, const AddParams& p) {
  if (p.n == 0) return {};
  return context.launch(kernel_of("add", p.dtype), spread(context, p.n), p);
}

Status cast(Context& context, const CastParams& p) {
  if (p.n == 0) return {};
  if (p.from == p.to) return context.copy(p.out, p.x, p.n * size_of(p.from));
  return context.launch(cast_kernel(p.from), spread(context, p.n), p);
}

}  // namespace westwind::cuda
