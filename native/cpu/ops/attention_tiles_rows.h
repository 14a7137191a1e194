// Attention of one block of query rows on tiles: as attention_rows.h, with P rounded to bf16 and statistics in f32.
// Used over a packed row (attention.cc) and over a cache (decode.cc); both give a token the same bits.
//
// Rows are taken 16 at a time, the lanes of a register. All of a row's arithmetic stays in its lane and goes over
// logical keys in order, so it depends neither on the lane nor on its neighbours: what a neighbour sees in addition has
// weight 0.
#pragma once
#include "attention_rows.h"
#include "attention_tiles.h"

namespace westwind {
namespace {

constexpr int64_t kPackedKeys = 2 * kKeys;  // times D: elements of a packed block, K by columns and V by rows

template <class KeyAt, class ValueAt>
inline void pack_keys(int64_t n, int64_t D, const KeyAt& key_at, const ValueAt& value_at, bf16* to) {
  pack_left_columns(n, D, key_at, to);
  pack_left_rows(n, D, value_at, to + kKeys * D);
}

// What 16 rows keep between key blocks: maximum of score · log2(e), which lags behind, and the sum of the weights.
struct Statistics {
  float maximum[16], sum[16];
};

// Scores [keys][16] to weights 2^(score · scale − maximum) as pairs of keys; 0 where hidden. The maximum is raised only
// where a score is above it by more than 8, so that earlier sums seldom have to be scaled and no weight is above 2^8.
// Returns whether it was, and then by what they have to be multiplied.
template <bool kMasked>
inline bool weigh(int keys, const float* scores, float scale, vi visible, const int32_t* key_positions, vi oldest,
                  Statistics* statistics, uint32_t* weights, vf* shrink) {
  constexpr int kStep = 4;  // keys at a time: chains of maxima side by side
  const vf minus_inf = splat(-__builtin_inff());
  const auto mask_of_key = [&](int key) {
    vi mask = visible > vi{} + key;
    if (key_positions != nullptr) mask &= oldest <= vi{} + key_positions[key];
    return mask;
  };
  vf top[kStep] = {minus_inf, minus_inf, minus_inf, minus_inf};
  for (int key = 0; key < keys; key += kStep)
    for (int i = 0; i < kStep; ++i) {
      vf x = load(scores + (key + i) * 16);
      if (kMasked) x = select(mask_of_key(key + i), x, minus_inf);
      top[i] = max(top[i], x);
    }
  const vf reach = max(max(top[0], top[1]), max(top[2], top[3])) * scale, before = load(statistics->maximum);
  const vi raise = reach > before + 8.f;
  const vf maximum = select(raise, reach, before);

  vf sum[2] = {};
  for (int key = 0; key < keys; key += 2) {
    vf weight[2];
    for (int i = 0; i < 2; ++i) {
      weight[i] = exp2_of(load(scores + (key + i) * 16) * scale - maximum);
      if (kMasked) weight[i] = select(mask_of_key(key + i), weight[i], vf{});
      sum[i] += weight[i];
    }
    store_words(weights + key / 2 * 16, pairs_of(weight[0], weight[1]));
  }
  const bool raised = any(raise);
  vf total = load(statistics->sum);
  if (raised) {
    *shrink = select(raise, exp2_of(before - maximum), splat(1));  // before may be −inf, as may both
    total *= *shrink;
    store(statistics->maximum, maximum);
  }
  store(statistics->sum, total + (sum[0] + sum[1]));
  return raised;
}

// block_at(key, n): packed keys of the block from logical key `key` on, which has n.
template <class BlockAt>
void attend_on_tiles(const QueryBlock<bf16>& p, const BlockAt& block_at) {
  const int64_t D = p.D, group = p.group, rows = p.tokens * group, groups = (rows + 15) / 16;
  constexpr int64_t kScores = 16 * kKeys;
  const int64_t words = groups * (16 * D / 2 + 16 * D + 2 * 16 + 2 * 16) + 2 * kScores + kScores / 2;
  float* memory = static_cast<float*>(scratch(Slot::kBlock, 4 * words, p.shortage));
  if (memory == nullptr) return;
  float* out = memory;                    // [groups, D, 16]
  float* scores = out + groups * 16 * D;  // two of [kKeys, 16]: the next while one is worked on
  uint32_t* weights = reinterpret_cast<uint32_t*>(scores + 2 * kScores);  // [kKeys / 2, 16] pairs
  bf16* q = reinterpret_cast<bf16*>(weights + kScores / 2);               // [groups, D / 32] tiles
  Statistics* statistics = reinterpret_cast<Statistics*>(q + groups * 16 * D);
  int32_t* seen = reinterpret_cast<int32_t*>(statistics + groups);  // [groups · 16]
  int32_t* oldest = seen + groups * 16;                             // the least position that a row sees
  const float scale = p.scale * 1.44269504088896341f;

  const Span queries = p.window > 0 ? span_of(p.query_positions, p.tokens) : Span{};
  for (int64_t r = 0; r < groups * 16; ++r) {  // rows past the end are 0 and see everything
    seen[r] = r < rows ? p.seen[r / group] : INT32_MAX;
    oldest[r] = p.window > 0 && r < rows ? p.query_positions[r / group] - p.window + 1 : INT32_MIN;
  }
  for (int64_t g = 0; g < groups; ++g) {
    const auto row_at = [&](int64_t i) {
      const int64_t r = 16 * g + i;
      return p.q + r / group * p.q_stride + r % group * D;
    };
    pack_right_columns(least(16, rows - 16 * g), D, row_at, q + g * 16 * D);
    store(statistics[g].maximum, splat(-__builtin_inff()));
    store(statistics[g].sum, vf{});
  }
  memset(out, 0, sizeof(float) * groups * 16 * D);

  Tiles tiles;
  BlockWindow window;
  const int64_t last_key = p.seen[p.tokens - 1];
  for (int64_t key = 0; key < last_key; key += kKeys) {
    const int n = static_cast<int>(least(kKeys, p.keys.count - key));
    window_of(p.keys, key, n, p.key_positions, p.window, queries, &window);
    if (window.hides_all) continue;
    const int32_t* positions = window.positions();
    const bf16* k = block_at(key, n);
    const bf16* v = k + kKeys * D;
    // 32s of keys that any row of the group sees; none: 0 or less.
    const auto halves = [&](int64_t g) { return (least(seen[least(rows, 16 * g + 16) - 1] - key, kKeys) + 31) / 32; };
    const auto score = [&](int64_t g) {
      const Operand left{k, 16 * D, kElements}, right{q + g * 16 * D, 0, kElements};
      const Sums to{scores + g % 2 * kScores, kSums, 0, kTileBytes};
      if (halves(g) == 2)
        multiply<4, 1>(tiles, D / 32, left, right, to, false);
      else
        multiply<2, 1>(tiles, D / 32, left, right, to, false);
    };
    int64_t g = 0;
    while (halves(g) <= 0) ++g;
    score(g);
    for (; g < groups; ++g) {
      if (g + 1 < groups) score(g + 1);  // the tiles' unit does this during the exponentials
      const bool all = seen[16 * g] - key >= kKeys && positions == nullptr;
      const int keys = static_cast<int>(32 * halves(g));
      const vi visible = load_indices(seen + 16 * g) - static_cast<int32_t>(key);
      const vi from = load_indices(oldest + 16 * g);
      const float* of_group = scores + g % 2 * kScores;
      float* sums = out + g * 16 * D;
      vf shrink;
      if (all ? weigh<false>(keys, of_group, scale, visible, nullptr, from, statistics + g, weights, &shrink)
              : weigh<true>(keys, of_group, scale, visible, positions, from, statistics + g, weights, &shrink))
        for (int64_t d = 0; d < D; ++d) store(sums + d * 16, load(sums + d * 16) * shrink);
      add_column(tiles, D, halves(g), v, weights, sums);
    }
  }

  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = 16 * g, n = least(16, rows - first);
    const Statistics& s = statistics[g];
    unpack_sums(n, D, out + first * D, 1 / load(s.sum),
                [&](int64_t i) { return p.out + (first + i) / group * p.out_stride + (first + i) % group * D; });
    if (p.lse != nullptr)
      for (int64_t i = 0; i < n; ++i)
        p.lse[(first + i) % group * p.lse_stride + (first + i) / group] =
            s.maximum[i] * 0.693147180559945309f + logf(s.sum[i]);
  }
}

}  // namespace
}  // namespace westwind
