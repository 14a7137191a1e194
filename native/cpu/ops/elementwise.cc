// fill, scale, add, cast: one pass each, limited by memory bandwidth. Contract: ops/elementwise.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int64_t kRange = 65536;  // elements of one parallel range

// body(i, lanes) over [0, n) on all threads.
template <class Body>
void for_elements(int64_t n, const Body& body) {
  parallel_ranges(n, kRange, [&](int64_t begin, int64_t end) {
    for_lanes(end - begin, [&](int64_t i, auto lanes) { body(begin + i, lanes); });
  });
}

template <class T>
void fill_with(T* x, int64_t n, float value) {
  for_elements(n, [&](int64_t i, auto lanes) { store(x + i, splat(value), lanes); });
}

template <class T>
void scale_by(T* x, int64_t n, float factor) {
  for_elements(n, [&](int64_t i, auto lanes) { store(x + i, load(x + i, lanes) * factor, lanes); });
}

template <class T>
void add_to(const T* a, const T* b, T* out, int64_t n) {
  for_elements(n, [&](int64_t i, auto lanes) { store(out + i, load(a + i, lanes) + load(b + i, lanes), lanes); });
}

template <class From, class To>
void convert(const From* x, To* out, int64_t n) {
  for_elements(n, [&](int64_t i, auto lanes) { store(out + i, load(x + i, lanes), lanes); });
}

void copy(const void* x, void* out, int64_t bytes) {
  parallel_ranges(bytes, kRange * 4, [&](int64_t begin, int64_t end) {
    memcpy(static_cast<char*>(out) + begin, static_cast<const char*>(x) + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace

Status fill(const FillParams& p) {
  if (p.dtype == DType::kBf16) {
    fill_with(static_cast<bf16*>(p.x), p.n, p.value);
  } else if (p.dtype == DType::kF32) {
    fill_with(static_cast<float*>(p.x), p.n, p.value);
  } else {
    if (!(p.value >= -2147483648.f && p.value < 2147483648.f))
      return fail("fill: value must fit i32, got %g", static_cast<double>(p.value));
    int32_t* x = static_cast<int32_t*>(p.x);
    const int32_t value = static_cast<int32_t>(p.value);
    parallel_ranges(p.n, kRange, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) x[i] = value;
    });
  }
  return {};
}

Status scale(const ScaleParams& p) {
  if (p.dtype == DType::kI32) return fail("scale: dtype must be f32 or bf16, got i32");
  p.dtype == DType::kBf16 ? scale_by(static_cast<bf16*>(p.x), p.n, p.factor)
                          : scale_by(static_cast<float*>(p.x), p.n, p.factor);
  return {};
}

Status add(const AddParams& p) {
  if (p.dtype == DType::kI32) return fail("add: dtype must be f32 or bf16, got i32");
  if (p.dtype == DType::kBf16) {
    add_to(static_cast<const bf16*>(p.a), static_cast<const bf16*>(p.b), static_cast<bf16*>(p.out), p.n);
  } else {
    add_to(static_cast<const float*>(p.a), static_cast<const float*>(p.b), static_cast<float*>(p.out), p.n);
  }
  return {};
}

Status cast(const CastParams& p) {
  if (p.from == p.to) {
    copy(p.x, p.out, p.n * size_of(p.from));
  } else if (p.from == DType::kF32 && p.to == DType::kBf16) {
    convert(static_cast<const float*>(p.x), static_cast<bf16*>(p.out), p.n);
  } else if (p.from == DType::kBf16 && p.to == DType::kF32) {
    convert(static_cast<const bf16*>(p.x), static_cast<float*>(p.out), p.n);
  } else {
    return fail("cast: i32 has no conversion; expected f32 and bf16");
  }
  return {};
}

}  // namespace westwind::WESTWIND_ISA
