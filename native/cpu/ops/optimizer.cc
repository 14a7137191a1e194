// adamw, rmsprop, sum_squares over all tensors of a model at once: the tensors are cut into pieces of fixed
// size and the pieces shared out, so a thousand small tensors cost what one big one does. Limited by memory
// bandwidth. Contract and formulas: ops/optimizer.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int64_t kUpdatePiece = 65536;   // elements; the split does not show in the results
constexpr int64_t kSquaresPiece = 16384;  // elements per f64 partial: part of the defined order of summation

// starts[i] = pieces before tensor i; starts[count] = all pieces. size(i) is the length of tensor i. Null where there
// is no memory.
template <class Size>
int64_t* cut_into_pieces(int32_t count, int64_t piece, const Size& size, Shortage& shortage) {
  int64_t* starts = static_cast<int64_t*>(scratch(Slot::kShared, (count + int64_t{1}) * 8, shortage));
  if (starts == nullptr) return nullptr;
  starts[0] = 0;
  for (int32_t i = 0; i < count; ++i) starts[i + 1] = starts[i] + (size(i) + piece - 1) / piece;
  return starts;
}

// body(tensor, piece, begin, end) for every piece of every tensor, in parallel; `piece` counts over all
// tensors.
template <class Size, class Body>
void for_pieces(const int64_t* starts, int32_t count, int64_t length, const Size& size, const Body& body) {
  parallel_for(starts[count], [&](int64_t piece) {
    int32_t low = 0, high = count;  // the last tensor that starts at or before this piece
    while (high - low > 1) {
      const int32_t middle = low + (high - low) / 2;
      (starts[middle] <= piece ? low : high) = middle;
    }
    const int64_t begin = (piece - starts[low]) * length, n = size(low);
    body(low, piece, begin, begin + length < n ? begin + length : n);
  });
}

struct AdamW {
  float keep1, keep2, add1, add2, step, root_bias2, eps, decay;

  AdamW(const OptimizerParams& p, const OptimizerTensor& t)
      : keep2(static_cast<float>(p.beta2)),
        add1(static_cast<float>(1 - p.beta1)),
        add2(static_cast<float>(1 - p.beta2)),
        step(static_cast<float>(-p.lr / p.bias1)),
        root_bias2(static_cast<float>(__builtin_sqrt(p.bias2))),
        eps(static_cast<float>(p.eps)),
        decay(static_cast<float>(1 - p.lr * t.weight_decay)) {}

  template <class Lanes>
  vf operator()(const OptimizerTensor& t, int64_t i, vf w, vf g, Lanes lanes) const {
    vf m = load(t.first + i, lanes), v = load(t.second + i, lanes);
    m += (g - m) * add1;
    v = v * keep2 + g * add2 * g;
    store(t.first + i, m, lanes);
    store(t.second + i, v, lanes);
    return w * decay + m * step / (sqrt(v) / root_bias2 + eps);
  }
};

struct RmsProp {
  float keep, add, step, eps, decay;

  RmsProp(const OptimizerParams& p, const OptimizerTensor& t)
      : keep(static_cast<float>(p.beta2)),
        add(static_cast<float>(1 - p.beta2)),
        step(static_cast<float>(-p.lr)),
        eps(static_cast<float>(p.eps)),
        decay(t.weight_decay) {}

  template <class Lanes>
  vf operator()(const OptimizerTensor& t, int64_t i, vf w, vf g, Lanes lanes) const {
    g += w * decay;
    const vf v = load(t.second + i, lanes) * keep + g * add * g;
    store(t.second + i, v, lanes);
    return w + g * step / (sqrt(v) + eps);
  }
};

template <class T, class Rule>
void update_piece(const Rule& rule, const OptimizerTensor& t, float grad_scale, int64_t begin, int64_t end) {
  T* param = static_cast<T*>(t.param);
  for_lanes(end - begin, [&](int64_t offset, auto lanes) {
    const int64_t i = begin + offset;
    const vf old = t.master != nullptr ? load(t.master + i, lanes) : load(param + i, lanes);
    const vf w = rule(t, i, old, load(t.grad + i, lanes) * grad_scale, lanes);
    if (t.master != nullptr) store(t.master + i, w, lanes);
    store(param + i, w, lanes);
  });
}

template <class Rule>
Status update(const OptimizerParams& p) {
  const auto size = [&](int32_t i) { return p.tensors[i].n; };
  Shortage shortage;
  const int64_t* starts = cut_into_pieces(p.count, kUpdatePiece, size, shortage);
  if (starts == nullptr) return shortage.status();
  for_pieces(starts, p.count, kUpdatePiece, size, [&](int32_t i, int64_t, int64_t begin, int64_t end) {
    const OptimizerTensor& t = p.tensors[i];
    const Rule rule(p, t);
    if (t.dtype == DType::kBf16) {
      update_piece<bf16>(rule, t, p.grad_scale, begin, end);
    } else {
      update_piece<float>(rule, t, p.grad_scale, begin, end);
    }
  });
  return {};
}

constexpr int kDoubles = kLanes / 2;  // f64 lanes of one register
typedef double vd __attribute__((vector_size(8 * kDoubles)));
typedef float vf_half __attribute__((vector_size(4 * kDoubles)));

double squares_of(const float* x, int64_t n) {
  constexpr int kAccumulators = 4;  // hides the latency of the multiply-add
  vd acc[kAccumulators] = {};
  int64_t i = 0;
  for (; i + kAccumulators * kDoubles <= n; i += kAccumulators * kDoubles) {
    for (int u = 0; u < kAccumulators; ++u) {
      vf_half narrow;
      memcpy(&narrow, x + i + u * kDoubles, sizeof narrow);
      const vd v = __builtin_convertvector(narrow, vd);
      acc[u] += v * v;
    }
  }
  const vd sums = (acc[0] + acc[1]) + (acc[2] + acc[3]);
  double total = 0;
  for (int lane = 0; lane < kDoubles; ++lane) total += sums[lane];
  for (; i < n; ++i) total += static_cast<double>(x[i]) * x[i];
  return total;
}

}  // namespace

Status adamw(const OptimizerParams& p) { return update<AdamW>(p); }

Status rmsprop(const OptimizerParams& p) { return update<RmsProp>(p); }

Status sum_squares(const SumSquaresParams& p) {
  const auto size = [&](int32_t i) { return p.sizes[i]; };
  Shortage shortage;
  const int64_t* starts = cut_into_pieces(p.count, kSquaresPiece, size, shortage);
  if (starts == nullptr) return shortage.status();
  double* partials = static_cast<double*>(scratch(Slot::kBlock, starts[p.count] * 8, shortage));
  if (partials == nullptr) return shortage.status();
  for_pieces(starts, p.count, kSquaresPiece, size, [&](int32_t i, int64_t piece, int64_t begin, int64_t end) {
    partials[piece] = squares_of(p.tensors[i] + begin, end - begin);
  });
  for (int32_t i = 0; i < p.count; ++i) {
    double total = 0;
    for (int64_t piece = starts[i]; piece < starts[i + 1]; ++piece) total += partials[piece];
    p.out[i] = static_cast<float>(total);
  }
  return {};
}

}  // namespace westwind::WESTWIND_ISA
