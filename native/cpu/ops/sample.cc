// sample: the next token of each row. Weights and sums in f64; the most likely tokens come out of a heap, so
// that only as many are ordered as are kept. Contract: ops/decode.h
#include <math.h>

#include "../ops.h"
#include "../parallel.h"
#include "../scratch.h"
#include "check_arguments.h"

namespace westwind {
namespace {

// A heap of token ids: the most likely on top, of equals the lower id.
struct TokenHeap {
  const double* weight;
  int32_t* id;
  int64_t size;

  bool before(int32_t a, int32_t b) const { return weight[a] != weight[b] ? weight[a] > weight[b] : a < b; }

  void sink(int64_t i) {
    const int32_t moved = id[i];
    for (int64_t child = 2 * i + 1; child < size; child = 2 * i + 1) {
      if (child + 1 < size && before(id[child + 1], id[child])) ++child;
      if (!before(id[child], moved)) break;
      id[i] = id[child];
      i = child;
    }
    id[i] = moved;
  }

  void build() {
    for (int64_t i = size / 2 - 1; i >= 0; --i) sink(i);
  }

  // Takes the top out; it lies behind the end of the heap then.
  int32_t take() {
    const int32_t top = id[0];
    id[0] = id[--size];
    id[size] = top;
    if (size > 0) sink(0);
    return top;
  }
};

// Sets the weight of every token that top_k and top_p cut off to 0.
void cut(double* weight, int32_t* ids, int64_t V, int32_t top_k, double top_p) {
  const int64_t most = top_k > 0 && top_k < V ? top_k : V;
  for (int64_t v = 0; v < V; ++v) ids[v] = static_cast<int32_t>(v);
  TokenHeap heap{weight, ids, V};
  heap.build();
  double mass = 0;  // of what top_k leaves
  if (most == V) {
    for (int64_t v = 0; v < V; ++v) mass += weight[v];
  } else {
    for (int64_t i = 0; i < most; ++i) mass += weight[heap.take()];
  }

  int64_t kept = most;
  if (top_p < 1) {
    double reached = 0;
    for (kept = 0; kept < most && reached < top_p * mass; ++kept)
      reached += weight[most == V ? heap.take() : ids[V - 1 - kept]];
  }
  for (int64_t i = 0; i < V - kept; ++i) weight[ids[i]] = 0;
}

// The token of one row, or −1: a logit is NaN or +inf, or all are −inf.
template <class T>
int32_t choose(const T* logits, int64_t V, float uniform, const SampleParams& p, Shortage& shortage) {
  int64_t best = 0;
  for (int64_t v = 0; v < V; ++v) {
    const float x = to_float(logits[v]);
    if (!(x < __builtin_inff())) return -1;
    if (x > to_float(logits[best])) best = v;
  }
  const double top = to_float(logits[best]);
  if (top == -__builtin_inf()) return -1;
  if (p.temperature == 0) return static_cast<int32_t>(best);

  double* weight = static_cast<double*>(scratch(Slot::kBlock, (8 + 4) * V, shortage));
  if (weight == nullptr) return -1;
  for (int64_t v = 0; v < V; ++v) weight[v] = ::exp((to_float(logits[v]) - top) / p.temperature);
  if (p.top_p < 1 || (p.top_k > 0 && p.top_k < V))
    cut(weight, reinterpret_cast<int32_t*>(weight + V), V, p.top_k, p.top_p);

  double mass = 0;
  for (int64_t v = 0; v < V; ++v) mass += weight[v];
  double below = 0;
  int64_t last = best;
  for (int64_t v = 0; v < V; ++v) {
    if (weight[v] == 0) continue;
    below += weight[v];
    last = v;
    if (below > uniform * mass) break;
  }
  return static_cast<int32_t>(last);
}

}  // namespace

namespace WESTWIND_ISA {

Status sample(const SampleParams& p) {
  const Status status = check_arguments(p);
  if (!status.ok) return status;
  for (int64_t b = 0; b < p.B; ++b)
    if (!(p.uniform[b] >= 0 && p.uniform[b] < 1))
      return fail("sample: uniform must be in [0, 1), got %g at index %lld", static_cast<double>(p.uniform[b]),
                  static_cast<long long>(b));

  Shortage shortage;
  parallel_for(p.B, [&](int64_t b) {
    const float uniform = p.uniform[b];
    p.out[b] = p.dtype == DType::kBf16
                   ? choose(static_cast<const bf16*>(p.logits) + b * p.V, p.V, uniform, p, shortage)
                   : choose(static_cast<const float*>(p.logits) + b * p.V, p.V, uniform, p, shortage);
  });
  if (shortage.bytes > 0) return shortage.status();
  for (int64_t b = 0; b < p.B; ++b)
    if (p.out[b] < 0)
      return fail("sample: logits must be numbers below infinity, and not all -infinity, got others in row %lld",
                  static_cast<long long>(b));
  return {};
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
