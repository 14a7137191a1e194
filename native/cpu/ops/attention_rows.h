// Attention of one block of query rows over its logical keys: online softmax over key blocks
// (FlashAttention-2, arXiv:2307.08691), everything in f32. Used over a packed row (attention.cc) and over a
// cache (decode.cc); both give a token the same bits.
#pragma once
#include "../scratch.h"
#include "attention_blocks.h"

namespace westwind {
namespace {

// Rows whose scores are made, weighted and used while in L1: 48 x 64 floats are 12 KiB.
constexpr int kChunk = 48;

// `tokens` queries times the `group` query heads of one KV head. Row r of the block is head r % group of
// token r / group.
template <class T>
struct QueryBlock {
  int64_t tokens, group, D;
  const T* q;  // token i, head g: q + i·q_stride + g·D
  int64_t q_stride;
  T* out;
  int64_t out_stride;
  float* lse;  // null, or token i, head g: lse[g·lse_stride + i]
  int64_t lse_stride;
  const T* k;  // row j of the key range: k + j·kv_stride
  const T* v;
  int64_t kv_stride;
  KeyRange keys;
  const int32_t* seen;             // [tokens]: token i sees logical keys [0, seen[i]); ascending, >= 1
  int32_t window;                  // <= 0: none
  const int32_t* query_positions;  // [tokens]; read with a window only
  const int32_t* key_positions;    // by row of the key range; null: the logical index
  float scale;
  Shortage& shortage;
};

inline int64_t tokens_per_block(int64_t group) { return group < kRows ? kRows / group : 1; }

// One row's scores to weights exp(score − max), 0 where hidden; folds them into max and sum (kLanes partial
// sums) and returns by what the row's earlier sums have to be multiplied.
template <bool kMasked>
inline float fold_scores(float* row, int visible, const int32_t* key_positions, int32_t oldest, float* row_max,
                         float* row_sum) {
  constexpr int kVectors = kKeys / kLanes;
  const vf minus_inf = splat(-__builtin_inff());
  vf x[kVectors];
  vf top = minus_inf;
  for (int i = 0; i < kVectors; ++i) {
    x[i] = load(row + i * kLanes);
    if (kMasked) x[i] = select(mask_of(i * kLanes, visible, key_positions, oldest), x[i], minus_inf);
    top = max(top, x[i]);
  }
  const float block_max = max(top), old_max = *row_max;
  const float new_max = block_max > old_max ? block_max : old_max;
  const float origin = new_max == -__builtin_inff() ? 0 : new_max;  // nothing seen yet: all weights become 0
  const vf by = splat(origin);
  vf sum{};
  for (int i = 0; i < kVectors; ++i) {
    const vf weight = exp_of_negative(x[i] - by);
    store(row + i * kLanes, weight);
    sum += weight;
  }
  *row_max = new_max;
  if (new_max == old_max) {
    store(row_sum, load(row_sum) + sum);
    return 1;
  }
  const float shrink = exp_of_negative(splat(old_max - origin))[0];
  store(row_sum, load(row_sum) * shrink + sum);
  return shrink;
}

template <class T>
void attend(const QueryBlock<T>& p) {
  const int64_t D = p.D, Dp = round_up(D, kWide), group = p.group;
  const int rows = static_cast<int>(p.tokens * group);
  const int64_t floats = rows * (D + Dp + 1 + kLanes) + kKeys * (D + Dp) + kChunk * kKeys;
  float* memory = static_cast<float*>(scratch(Slot::kBlock, 4 * floats, p.shortage));
  if (memory == nullptr) return;
  float* out = memory;  // [rows, Dp]
  float* k_panels = out + rows * Dp;
  float* v_panels = k_panels + kKeys * D;
  float* weights = v_panels + kKeys * Dp;  // [kChunk, kKeys]
  float* sums = weights + kChunk * kKeys;  // [rows, kLanes]
  float* q = sums + rows * kLanes;         // [rows, D], times scale
  float* maxima = q + rows * D;            // [rows]

  const Span queries = p.window > 0 ? span_of(p.query_positions, p.tokens) : Span{};
  for (int r = 0; r < rows; ++r) {
    const T* from = p.q + r / group * p.q_stride + r % group * D;
    for (int64_t d = 0; d < D; ++d) q[r * D + d] = to_float(from[d]) * p.scale;
    maxima[r] = -__builtin_inff();
  }
  memset(out, 0, sizeof(float) * rows * Dp);
  memset(sums, 0, sizeof(float) * rows * kLanes);

  BlockWindow window;
  const int64_t last_key = p.seen[p.tokens - 1];
  for (int64_t key = 0; key < last_key; key += kKeys) {
    const int n = static_cast<int>(least(kKeys, p.keys.count - key));
    window_of(p.keys, key, n, p.key_positions, p.window, queries, &window);
    if (window.hides_all) continue;
    const int32_t* positions = window.positions();
    pack_transposed<T>(
        n, D, [&](int64_t i) { return p.k + p.keys.row(key + i) * p.kv_stride; }, k_panels);
    pack_rows<T>(
        n, D, kKeys, 1, [&](int64_t i) { return p.v + p.keys.row(key + i) * p.kv_stride; }, v_panels);
    fetch_ahead(p.k, p.v, p.kv_stride, D, p.keys, key + kKeys, last_key);
    for (int first = 0; first < rows; first += kChunk) {
      const int M = static_cast<int>(least(kChunk, rows - first));
      const auto visible = [&](int r) {
        const int64_t count = p.seen[(first + r) / group] - key;
        return static_cast<int>(count < 0 ? 0 : least(count, kKeys));
      };
      if (visible(M - 1) == 0) continue;
      scores(M, D, q + first * D, k_panels, weights, visible);
      for (int r = 0; r < M; ++r) {
        const int row = first + r, count = visible(r);
        const int32_t oldest = positions == nullptr ? 0 : p.query_positions[row / group] - p.window + 1;
        const float shrink =
            count == kKeys && positions == nullptr
                ? fold_scores<false>(weights + r * kKeys, count, nullptr, 0, maxima + row, sums + row * kLanes)
                : fold_scores<true>(weights + r * kKeys, count, positions, oldest, maxima + row, sums + row * kLanes);
        if (shrink == 1) continue;
        float* sum = out + row * Dp;
        for (int64_t d = 0; d < Dp; d += kLanes) store(sum + d, load(sum + d) * shrink);
      }
      add_weighted(M, Dp, weights, v_panels, out + first * Dp, visible);
    }
  }

  for (int r = 0; r < rows; ++r) {
    const int64_t token = r / group, head = r % group;
    const float total = sum(load(sums + r * kLanes));
    T* to = p.out + token * p.out_stride + head * D;
    const float* from = out + r * Dp;
    const float inverse = 1 / total;
    int64_t d = 0;
    for (; d + kLanes <= D; d += kLanes) store(to + d, load(from + d) * inverse);
    if (d < D) store_tail(to + d, load(from + d) * inverse, static_cast<int>(D - d));
    if (p.lse != nullptr) p.lse[head * p.lse_stride + token] = maxima[r] + logf(total);
  }
}

}  // namespace
}  // namespace westwind
