// rms_norm: one read of a row from memory; the second look at it comes from cache. Limited by memory
// bandwidth. Contract and formulas: ops/rms_norm.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int kUnroll = 4;                 // accumulators: hides the latency of the multiply-add
constexpr int64_t kRangeElements = 16384;  // rows of one parallel range hold about this many
constexpr int64_t kChunkRows = 64;         // rows per partial dweight ...
constexpr int64_t kMaxChunks = 256;        // ... unless that made more partials than this

int64_t rows_per_range(int64_t C) { return C >= kRangeElements ? 1 : kRangeElements / (C > 0 ? C : 1); }

// Σ term(i, lanes) over a row, in an order that depends on C alone.
template <class Term>
float row_sum(int64_t C, const Term& term) {
  vf acc[kUnroll] = {};
  int64_t i = 0;
  for (; i + kUnroll * kLanes <= C; i += kUnroll * kLanes)
    for (int u = 0; u < kUnroll; ++u) acc[u] += term(i + u * kLanes, AllLanes{});
  for_lanes(C - i, [&](int64_t j, auto lanes) { acc[0] += term(i + j, lanes); });
  return sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

template <class T>
void forward_row(const RmsNormParams& p, int64_t t) {
  const int64_t C = p.C, at = t * C;
  const T* x = static_cast<const T*>(p.x) + at;
  const T* weight = static_cast<const T*>(p.weight);
  T* y = static_cast<T*>(p.y) + at;
  const T* s = x;
  float squares;
  if (p.residual != nullptr) {
    const T* residual = static_cast<const T*>(p.residual) + at;
    T* total = static_cast<T*>(p.sum) + at;
    squares = row_sum(C, [&](int64_t i, auto lanes) {
      store(total + i, load(x + i, lanes) + load(residual + i, lanes), lanes);
      const vf v = load(total + i, lanes);  // rounded: what the rest of the model sees is what is normalised
      return v * v;
    });
    s = total;
  } else {
    squares = row_sum(C, [&](int64_t i, auto lanes) {
      const vf v = load(x + i, lanes);
      return v * v;
    });
  }
  const float rstd = 1.f / __builtin_sqrtf(squares / static_cast<float>(C) + p.eps);
  p.rstd[t] = rstd;
  for_lanes(C,
            [&](int64_t i, auto lanes) { store(y + i, load(s + i, lanes) * rstd * load(weight + i, lanes), lanes); });
}

template <class T>
void backward_row(const RmsNormBackwardParams& p, int64_t t, float* dweight) {
  const int64_t C = p.C, at = t * C;
  const T* dy = static_cast<const T*>(p.dy) + at;
  const T* s = static_cast<const T*>(p.s) + at;
  const T* weight = static_cast<const T*>(p.weight);
  const T* dresidual = p.dresidual == nullptr ? nullptr : static_cast<const T*>(p.dresidual) + at;
  T* dx = static_cast<T*>(p.dx) + at;
  const float rstd = p.rstd[t];
  const float dot = row_sum(C, [&](int64_t i, auto lanes) {
    const vf dys = load(dy + i, lanes) * load(s + i, lanes);
    store(dweight + i, load(dweight + i, lanes) + dys * rstd, lanes);
    return dys * load(weight + i, lanes);
  });
  const float pull = dot / static_cast<float>(C) * rstd * rstd;
  for_lanes(C, [&](int64_t i, auto lanes) {
    const vf g = load(dy + i, lanes) * load(weight + i, lanes);
    vf out = (g - load(s + i, lanes) * pull) * rstd;
    if (dresidual != nullptr) out += load(dresidual + i, lanes);
    store(dx + i, out, lanes);
  });
}

template <class T>
void forward(const RmsNormParams& p) {
  parallel_ranges(p.T, rows_per_range(p.C), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) forward_row<T>(p, t);
  });
}

// Chunks of rows, whose number depends on T alone, each sum dweight for themselves; then the chunks are added
// in order.
template <class T>
Status backward(const RmsNormBackwardParams& p) {
  const int64_t T_ = p.T, C = p.C;
  const int64_t even = (T_ + kMaxChunks - 1) / kMaxChunks;
  const int64_t rows = even > kChunkRows ? even : kChunkRows;
  const int64_t chunks = (T_ + rows - 1) / rows;
  Shortage shortage;
  float* partials = static_cast<float*>(scratch(Slot::kShared, chunks * C * 4, shortage));
  if (partials == nullptr) return shortage.status();
  parallel_ranges(T_, rows, [&](int64_t begin, int64_t end) {
    float* partial = partials + begin / rows * C;
    memset(partial, 0, static_cast<size_t>(C) * 4);
    for (int64_t t = begin; t < end; ++t) backward_row<T>(p, t, partial);
  });
  parallel_ranges(C, 256, [&](int64_t begin, int64_t end) {
    for_lanes(end - begin, [&](int64_t i, auto lanes) {
      vf total{};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += load(partials + chunk * C + begin + i, lanes);
      store(p.dweight + begin + i, load(p.dweight + begin + i, lanes) + total, lanes);
    });
  });
  return {};
}

}  // namespace

Status rms_norm(const RmsNormParams& p) {
  p.dtype == DType::kBf16 ? forward<bf16>(p) : forward<float>(p);
  return {};
}

Status rms_norm_backward(const RmsNormBackwardParams& p) {
  if (p.T == 0 || p.C == 0) return {};
  return p.dtype == DType::kBf16 ? backward<bf16>(p) : backward<float>(p);
}

}  // namespace westwind::WESTWIND_ISA
