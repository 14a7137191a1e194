// adamw, rmsprop, sum_squares: all tensors in one launch, a block to a piece of one tensor, so that a thousand small
// tensors cost what one big one does. Limited by HBM: with an f32 master and a bf16 parameter, adamw moves 30 bytes an
// element, rmsprop 22, sum_squares 4. The arithmetic is torch's, so every operation is rounded by itself and no
// multiply is joined to an add. Contract and formulas: ops/optimizer.h
#include "common/reduce.cuh"
#include "common/row.cuh"
#include "params/optimizer.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;

// The last tensor that begins at or before this piece.
__device__ __forceinline__ int tensor_of(const int64_t* starts, int count, int64_t piece) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (starts[middle] <= piece ? low : high) = middle;
  }
  return low;
}

__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }

struct AdamW {
  static constexpr bool kFirst = true;
  __device__ static float update(const UpdateLaunch& p, float decay, float w, float g, float& m, float& v) {
    m = plus(m, mul(plus(g, -m), p.add_first));
    v = plus(mul(v, p.keep), mul(mul(g, p.add), g));
    const float root = plus(__fdiv_rn(__fsqrt_rn(v), p.root_bias2), p.eps);
    return plus(mul(w, decay), __fdiv_rn(mul(m, p.step), root));
  }
};

struct RmsProp {
  static constexpr bool kFirst = false;
  __device__ static float update(const UpdateLaunch& p, float decay, float w, float g, float&, float& v) {
    g = plus(g, mul(w, decay));
    v = plus(mul(v, p.keep), mul(mul(g, p.add), g));
    return plus(w, __fdiv_rn(mul(g, p.step), plus(__fsqrt_rn(v), p.eps)));
  }
};

// Elements begin .. end − 1 of a tensor, begin on a multiple of kUpdatePiece.
template <class Rule, class T>
__device__ __forceinline__ void update_piece(const UpdateLaunch& p, const OptimizerTensor& t, int64_t begin,
                                             int64_t end) {
  T* param = static_cast<T*>(t.param);
  const bool whole = whole_groups<4>(param, 4) && aligned16(t.master) && aligned16(t.grad) && aligned16(t.first) &&
                     aligned16(t.second);
  const float decay = t.weight_decay;
  const int64_t groups = whole ? (end - begin) / 4 : 0;
  for (int64_t g = begin / 4 + threadIdx.x; g < begin / 4 + groups; g += kThreads) {
    Four w = t.master != nullptr ? load_vec(t.master + g * 4) : load_four(param, g, end, true);
    const Four grad = load_vec(t.grad + g * 4);
    Four m = Rule::kFirst ? load_vec(t.first + g * 4) : Four{}, v = load_vec(t.second + g * 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) w.v[i] = Rule::update(p, decay, w.v[i], mul(grad.v[i], p.grad_scale), m.v[i], v.v[i]);
    if (Rule::kFirst) store_vec(t.first + g * 4, m);
    store_vec(t.second + g * 4, v);
    if (t.master != nullptr) store_vec(t.master + g * 4, w);
    store_four(param, g, end, true, w);
  }
  for (int64_t i = begin + groups * 4 + threadIdx.x; i < end; i += kThreads) {
    const float old = t.master != nullptr ? t.master[i] : to_f32(param[i]);
    float m = Rule::kFirst ? t.first[i] : 0.f, v = t.second[i];
    const float w = Rule::update(p, decay, old, mul(t.grad[i], p.grad_scale), m, v);
    if (Rule::kFirst) t.first[i] = m;
    t.second[i] = v;
    if (t.master != nullptr) t.master[i] = w;
    param[i] = from_f32<T>(w);
  }
}

template <class Rule>
__device__ __forceinline__ void update(const UpdateLaunch& p) {
  const int which = tensor_of(p.starts, p.count, blockIdx.x);
  const OptimizerTensor t = p.tensors[which];
  const int64_t begin = (blockIdx.x - p.starts[which]) * kUpdatePiece;
  const int64_t end = begin + kUpdatePiece < t.n ? begin + kUpdatePiece : t.n;
  if (t.dtype == DType::kBf16) {
    update_piece<Rule, bf16>(p, t, begin, end);
  } else {
    update_piece<Rule, float>(p, t, begin, end);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) adamw(const __grid_constant__ UpdateLaunch p) {
  update<AdamW>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) rmsprop(const __grid_constant__ UpdateLaunch p) {
  update<RmsProp>(p);
}

// The sum of a piece: of each thread in ascending order, then over the threads in a tree.
extern "C" __global__ void __launch_bounds__(kThreads) sum_squares_pieces(const __grid_constant__ SquaresLaunch p) {
  __shared__ double partials[kThreads / 32];
  const int which = tensor_of(p.starts, p.count, blockIdx.x);
  const int64_t n = p.sizes[which], begin = (blockIdx.x - p.starts[which]) * kSquaresPiece;
  const int64_t end = begin + kSquaresPiece < n ? begin + kSquaresPiece : n;
  const float* x = p.tensors[which];
  const bool whole = aligned16(x);
  double total = 0;
#pragma unroll 4
  for (int64_t at = begin + threadIdx.x * 4; at < end; at += kThreads * 4) {
    const Four four = load_group(x, at / 4, end, whole && at + 4 <= end);
#pragma unroll
    for (int i = 0; i < 4; ++i) total += static_cast<double>(four.v[i]) * four.v[i];
  }
  total = block_sum<kThreads>(total, partials);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(kThreads) sum_squares(const __grid_constant__ SquaresLaunch p) {
  __shared__ double partials[kThreads / 32];
  double total = 0;
  for (int64_t i = p.starts[blockIdx.x] + threadIdx.x; i < p.starts[blockIdx.x + 1]; i += kThreads)
    total += p.partials[i];
  total = block_sum<kThreads>(total, partials);
  if (threadIdx.x == 0) p.out[blockIdx.x] = static_cast<float>(total);
}
