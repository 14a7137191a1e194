// rope: the angles of a row are computed once and used by all its heads. Limited by memory bandwidth.
//
// Sines cost more than the rotation, so a position is split into a multiple of kStep and a rest, and
//   cos(a + b) = cos a · cos b − sin a · sin b   (sin alike)
// joins the two in f64: the rests come from a table that a thread keeps, the multiples change once in kStep
// rows. What a position gets depends on the position alone. Contract and formula: ops/rope.h
#include <stdio.h>
#include <stdlib.h>

#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int kStep = 64;
constexpr int64_t kRangeRows = 32;  // rows of one parallel range

// What a thread knows about (theta, D): f64 tables and the last multiple of kStep; half = D/2 angles a row.
struct Angles {
  double theta = 0;
  int half = 0;
  int64_t anchor = -1;  // position / kStep that anchor_cos, anchor_sin hold
  double* memory = nullptr;
  double *frequency, *anchor_cos, *anchor_sin;  // [half]
  double *cos, *sin;                            // [kStep, half]
  float *row_cos, *row_sin;                     // [half], the result of `at`
  ~Angles() { free(memory); }

  void prepare(double new_theta, int new_half) {
    if (theta == new_theta && half == new_half) return;
    free(memory);
    const int64_t n = new_half;
    memory = static_cast<double*>(malloc(static_cast<size_t>((2 * kStep + 4) * n) * sizeof(double)));
    if (memory == nullptr) {
      fprintf(stderr, "westwind: out of memory for the angles of rope, D = %lld\n", static_cast<long long>(2 * n));
      abort();
    }
    theta = new_theta;
    half = new_half;
    anchor = -1;
    frequency = memory;
    anchor_cos = frequency + n;
    anchor_sin = anchor_cos + n;
    cos = anchor_sin + n;
    sin = cos + kStep * n;
    row_cos = reinterpret_cast<float*>(sin + kStep * n);
    row_sin = row_cos + n;
    for (int i = 0; i < half; ++i) frequency[i] = __builtin_pow(theta, -static_cast<double>(i) / half);
    for (int rest = 0; rest < kStep; ++rest) fill(rest, cos + rest * n, sin + rest * n);
  }

  void fill(int64_t position, double* to_cos, double* to_sin) const {
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequency[i];
      to_cos[i] = __builtin_cos(angle);
      to_sin[i] = __builtin_sin(angle);
    }
  }

  void at(int32_t position, float sign) {
    if (position / kStep != anchor) {
      anchor = position / kStep;
      fill(anchor * kStep, anchor_cos, anchor_sin);
    }
    const double* c = cos + position % kStep * static_cast<int64_t>(half);
    const double* s = sin + position % kStep * static_cast<int64_t>(half);
    for (int i = 0; i < half; ++i) {
      row_cos[i] = static_cast<float>(anchor_cos[i] * c[i] - anchor_sin[i] * s[i]);
      row_sin[i] = sign * static_cast<float>(anchor_sin[i] * c[i] + anchor_cos[i] * s[i]);
    }
  }
};

thread_local Angles angles;

template <class T>
void rotate(const RopeParams& p) {
  const int half = p.D / 2;
  parallel_ranges(p.T, kRangeRows, [&](int64_t begin, int64_t end) {
    Angles& mine = angles;
    mine.prepare(p.theta, half);
    for (int64_t t = begin; t < end; ++t) {
      mine.at(p.positions[t], p.sign);
      const float *c = mine.row_cos, *s = mine.row_sin;
      for (int head = 0; head < p.heads; ++head) {
        T* low = static_cast<T*>(p.x) + (t * p.row_heads + head) * p.D;
        T* high = low + half;
        for_lanes(half, [&](int64_t i, auto lanes) {
          const vf a = load(low + i, lanes), b = load(high + i, lanes);
          const vf cosine = load(c + i, lanes), sine = load(s + i, lanes);
          store(low + i, a * cosine - b * sine, lanes);
          store(high + i, b * cosine + a * sine, lanes);
        });
      }
    }
  });
}

}  // namespace

Status rope(const RopeParams& p) {
  if (p.D % 2 != 0) return fail("rope: D must be even, got %d", p.D);
  for (int64_t t = 0; t < p.T; ++t) {
    if (p.positions[t] >= 0) continue;
    return fail("rope: positions must be >= 0, got %d at index %lld", p.positions[t], static_cast<long long>(t));
  }
  if (p.D == 0 || p.heads == 0) return {};
  p.dtype == DType::kBf16 ? rotate<bf16>(p) : rotate<float>(p);
  return {};
}

}  // namespace westwind::WESTWIND_ISA
