// The backward pass of attention on tiles: one block of query rows against all its keys. The formulas and the order are
// those of attention_backward.cc; P and dS are rounded to bf16 where they are operands, all sums are f32.
//
// Query rows go in units of 32, two registers wide: dV and dK are summed over them. S, dP and dQ are made transposed
// (attention_tiles.h), dK and dV as they lie. Pairs of keys make dS an operand of dQ, pairs of rows i and i + 16 of the
// unit make P and dS operands of dV and dK: neither takes a shuffle.
#pragma once
#include "attention_packed.h"
#include "attention_tiles.h"
#include "attention_trees.h"

namespace westwind {
namespace {

constexpr int64_t kUnit = 32;                 // query rows
constexpr int64_t kBlockScores = 16 * kKeys;  // of 16 rows

// A packed block of keys: left operands of S, dP and dQ.
struct KeyBlock {
  const bf16 *k_columns, *v_columns, *k_rows;
};
inline int64_t key_block_size(int64_t D) { return 3 * kKeys * D; }

// Working memory of one thread.
struct TileWorkspace {
  bf16 *q_columns, *dout_columns;  // [units · 2, D / 32] tiles: right operands of S and dP
  bf16 *q_rows, *dout_rows;        // [units, D / 16] tiles: right operands of dK and dV
  float* dq;                       // [units · 2, D, 16]
  float* scores;                   // two of {S, dP} [2, 2, kKeys, 16]: the next unit's while one is worked on
  uint32_t *weights, *dscores;     // P and dS [units, kKeys, 16] pairs of rows: left operands of dV and dK
  uint32_t* dscore_pairs;          // dS [2, kKeys / 2, 16] pairs of keys: right operand of dQ
  float* part;                     // [kKeys, D] of dK or dV, for blocks whose rows lie apart
  float *lse, *delta;              // [units · 32]; lse times log2(e)
  int32_t *seen, *oldest;          // [units · 32] keys that a row sees; the least position that it sees
};

// With null pointers where there is no memory.
inline TileWorkspace tile_workspace(int64_t units, int64_t D, Shortage& shortage) {
  const int64_t rows = units * kUnit, operand = rows * D / 2;  // in words
  const int64_t words = 4 * operand + rows * D + (8 + 2 * units + 1) * kBlockScores + kKeys * D + 4 * rows;
  uint32_t* at = static_cast<uint32_t*>(scratch(Slot::kBlock, 4 * words, shortage));
  TileWorkspace w{};
  if (at == nullptr) return w;
  const auto take = [&]<class Part>(Part*& part, int64_t size) {
    part = reinterpret_cast<Part*>(at);
    at += size;
  };
  take(w.q_columns, operand);
  take(w.dout_columns, operand);
  take(w.q_rows, operand);
  take(w.dout_rows, operand);
  take(w.dq, rows * D);
  take(w.scores, 8 * kBlockScores);
  take(w.weights, units * kBlockScores);
  take(w.dscores, units * kBlockScores);
  take(w.dscore_pairs, kBlockScores);
  take(w.part, kKeys * D);
  take(w.lse, rows);
  take(w.delta, rows);
  take(w.seen, rows);
  take(w.oldest, rows);
  return w;
}

// What a unit's rows compare with, a lane to a row.
struct UnitRows {
  vf lse[2], delta[2];
  vi visible[2], oldest[2];
};

// S and dP of a unit and `keys` keys, [2][2][kKeys][16], to P and dS as operands.
template <bool kMasked>
inline void differentiate(int keys, const float* scores, float scale, const UnitRows& rows,
                          const int32_t* key_positions, uint32_t* weights, uint32_t* dscores, uint32_t* dscore_pairs) {
  const float* dp = scores + 2 * kBlockScores;
  for (int key = 0; key < keys; key += 2) {
    vf p[2][2], ds[2][2];  // of keys `key` and the next, of rows 0 to 15 and 16 to 31
    for (int i = 0; i < 2; ++i)
      for (int h = 0; h < 2; ++h) {
        const int64_t at = h * kBlockScores + (key + i) * 16;
        p[i][h] = exp2_of(load(scores + at) * scale - rows.lse[h]);
        ds[i][h] = p[i][h] * (load(dp + at) - rows.delta[h]);
        if (!kMasked) continue;
        vi mask = rows.visible[h] > vi{} + (key + i);
        if (key_positions != nullptr) mask &= rows.oldest[h] <= vi{} + key_positions[key + i];
        p[i][h] = select(mask, p[i][h], vf{});
        ds[i][h] = select(mask, ds[i][h], vf{});
      }
    for (int i = 0; i < 2; ++i) {
      store_words(weights + (key + i) * 16, pairs_of(p[i][0], p[i][1]));
      store_words(dscores + (key + i) * 16, pairs_of(ds[i][0], ds[i][1]));
      store_words(dscore_pairs + i * kBlockScores / 2 + key / 2 * 16, pairs_of(ds[0][i], ds[1][i]));
    }
  }
}

// Tiles of words as an operand.
inline const bf16* operand(const uint32_t* words) { return reinterpret_cast<const bf16*>(words); }

// A block of queries: tokens [begin, begin + tokens) of segment s, times the query heads of one KV head.
struct BackwardBlock {
  const AttentionBackwardParams& p;
  int32_t s;
  int64_t begin, tokens, kv_head;
  int64_t own_place, prefix_place;  // of the first own and prefix key among the rows of dk and dv

  int64_t group() const { return p.Hq / p.Hkv; }
  int64_t rows() const { return tokens * group(); }
  int64_t units() const { return (rows() + kUnit - 1) / kUnit; }
  int64_t token(int64_t r) const { return begin + r / group(); }
  int64_t head(int64_t r) const { return kv_head * group() + r % group(); }
  int64_t q_at(int64_t r) const { return (token(r) * (p.Hq + 2 * p.Hkv) + head(r)) * p.D; }
  int64_t out_at(int64_t r) const { return (token(r) * p.Hq + head(r)) * p.D; }
};

// The block's queries and gradients as operands, and what else belongs to its rows.
inline void prepare_rows(const BackwardBlock& block, const KeyRange& keys, const TileWorkspace& w) {
  const AttentionBackwardParams& p = block.p;
  const Segments& g = p.segments;
  const int64_t D = p.D, rows = block.rows(), padded = block.units() * kUnit;
  const bf16* qkv = static_cast<const bf16*>(p.qkv);
  const bf16* out = static_cast<const bf16*>(p.out);
  const bf16* dout = static_cast<const bf16*>(p.dout);
  for (int64_t first = 0; first < padded; first += 16) {
    const auto q_row = [&](int64_t i) { return qkv + block.q_at(first + i); };
    const auto dout_row = [&](int64_t i) { return dout + block.out_at(first + i); };
    pack_right_columns(rows - first, D, q_row, w.q_columns + first * D);
    pack_right_columns(rows - first, D, dout_row, w.dout_columns + first * D);
    if (first % kUnit != 0) continue;
    pack_right_rows(rows - first, D, q_row, w.q_rows + first * D);
    pack_right_rows(rows - first, D, dout_row, w.dout_rows + first * D);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const bf16* o = out + block.out_at(r);
    const bf16* d_out = dout + block.out_at(r);
    vf delta{};
    for (int64_t d = 0; d < D; d += kLanes) delta += load(o + d) * load(d_out + d);
    const int64_t token = block.token(r);
    w.delta[r] = sum(delta);
    w.lse[r] = p.lse[block.head(r) * p.T + token] * 1.44269504088896341f;
    w.seen[r] = static_cast<int32_t>(keys.split + token - g.start[block.s] + 1);
    w.oldest[r] = g.window > 0 ? g.positions[token] - g.window + 1 : INT32_MIN;
  }
  for (int64_t r = rows; r < padded; ++r) {  // rows past the end: 0, with weights of 0
    w.delta[r] = 0;
    w.lse[r] = __builtin_inff();
    w.seen[r] = INT32_MAX;
    w.oldest[r] = INT32_MIN;
  }
  memset(w.dq, 0, sizeof(float) * padded * D);
}

// key_block(key): the packed keys from logical key `key` on. dQ of the block, and its part of dk and dv [rows of the
// tree, D].
template <class KeyBlockAt>
void backward_on_tiles(const BackwardBlock& block, const TileWorkspace& w, const KeyBlockAt& key_block, float* dk,
                       float* dv) {
  const AttentionBackwardParams& p = block.p;
  const Segments& g = p.segments;
  const int64_t D = p.D, rows = block.rows(), units = block.units();
  const float scale = p.scale * 1.44269504088896341f;
  const KeyRange keys = keys_of(g, block.s);
  prepare_rows(block, keys, w);

  Tiles tiles;
  BlockWindow window;
  const Span queries = g.window > 0 ? span_of(g.positions + block.begin, block.tokens) : Span{};
  for (int64_t key = 0; key < w.seen[rows - 1]; key += kKeys) {
    const int n = static_cast<int>(least(kKeys, keys.count - key));
    window_of(keys, key, n, g.positions, g.window, queries, &window);
    if (window.hides_all) continue;
    const int32_t* positions = window.positions();
    const KeyBlock packed = key_block(key);
    // 32s of keys that any row of the unit sees; none: 0 or less. Ascends in u.
    const auto halves = [&](int64_t u) {
      return (least(w.seen[least(rows, kUnit * (u + 1)) - 1] - key, kKeys) + 31) / 32;
    };
    const auto scores_of = [&](int64_t u) { return w.scores + u % 2 * 4 * kBlockScores; };
    const auto score = [&](int64_t u) {
      const Operand q{w.q_columns + u * kUnit * D, 16 * D, kElements};
      const Operand dout{w.dout_columns + u * kUnit * D, 16 * D, kElements};
      for (int64_t half = 0; half < halves(u); ++half) {
        const int64_t at = half * 32 * D;
        const Sums s{scores_of(u) + half * 32 * 16, kSums, kBlockScores, kTileBytes};
        const Sums dp{s.at + 2 * kBlockScores, s.down, s.across, s.row};
        multiply<2, 2>(tiles, D / 32, {packed.k_columns + at, 16 * D, kElements}, q, s, false);
        multiply<2, 2>(tiles, D / 32, {packed.v_columns + at, 16 * D, kElements}, dout, dp, false);
      }
    };
    int64_t u = 0;
    while (halves(u) <= 0) ++u;
    const int64_t first_unit = u;
    score(u);
    for (; u < units; ++u) {
      if (u + 1 < units) score(u + 1);  // the tiles' unit does this during the exponentials
      UnitRows of{};
      for (int h = 0; h < 2; ++h) {
        const int64_t r = kUnit * u + 16 * h;
        of.lse[h] = load(w.lse + r);
        of.delta[h] = load(w.delta + r);
        of.visible[h] = load_indices(w.seen + r) - static_cast<int32_t>(key);
        of.oldest[h] = load_indices(w.oldest + r);
      }
      const bool all = w.seen[kUnit * u] - key >= kKeys && positions == nullptr;
      (all ? differentiate<false> : differentiate<true>)(static_cast<int>(32 * halves(u)), scores_of(u), scale, of,
                                                         positions, w.weights + u * kBlockScores,
                                                         w.dscores + u * kBlockScores, w.dscore_pairs);
      for (int64_t d = 0; d < D; d += 32)
        multiply<2, 2>(tiles, halves(u), {packed.k_rows + d * kKeys, 16 * kKeys, kElements},
                       {operand(w.dscore_pairs), kBlockScores, kElements},
                       {w.dq + u * kUnit * D + d * 16, kSums, 16 * D, kTileBytes}, true);
    }

    // dV and dK of this pair of blocks, 32 keys at a time, over the units that see any of them.
    const bool together = n == kKeys && (key >= keys.split || key + kKeys <= keys.split);
    const auto place = [&](int64_t i) {
      return key + i < keys.split ? block.prefix_place + key + i : block.own_place + key + i - keys.split;
    };
    const auto add_to_keys = [&](const uint32_t* left, const bf16* right, float* sums) {
      const int64_t row_bytes = static_cast<int64_t>(sizeof(float)) * D;
      float* to = together ? sums + place(0) * D : w.part;
      if (!together) {
        memset(w.part, 0, row_bytes * kKeys);
        for (int64_t i = 0; i < n; ++i) memcpy(to + i * D, sums + place(i) * D, row_bytes);
      }
      for (int64_t half = 0; half < halves(units - 1); ++half) {
        int64_t from = first_unit;
        while (halves(from) <= half) ++from;
        const Operand weights{operand(left + from * kBlockScores + half * 32 * 16), kElements, 2 * kBlockScores};
        for (int64_t d = 0; d < D; d += 32)
          multiply<2, 2>(tiles, units - from, weights, {right + from * kUnit * D + d * 32, kElements, kUnit * D},
                         {to + half * 32 * D + d, 16 * D, 16, row_bytes}, true);
      }
      if (!together)
        for (int64_t i = 0; i < n; ++i) memcpy(sums + place(i) * D, to + i * D, row_bytes);
    };
    add_to_keys(w.weights, w.dout_rows, dv);
    add_to_keys(w.dscores, w.q_rows, dk);
  }

  for (int64_t first = 0; first < rows; first += 16)
    unpack_sums(least(16, rows - first), D, w.dq + first * D, splat(p.scale),
                [&](int64_t i) { return static_cast<bf16*>(p.dqkv) + block.q_at(first + i); });
}

// The tree's keys, packed once; base[s], for its segments: the place of the first own block.
inline void pack_tree(const AttentionBackwardParams& p, const Trees& trees, int64_t tree, int64_t kv_head,
                      const int64_t* base, bf16* packed) {
  const Segments& g = p.segments;
  const int64_t D = p.D, stride = (p.Hq + 2 * p.Hkv) * D;
  const bf16* k = static_cast<const bf16*>(p.qkv) + (p.Hq + kv_head) * D;
  for (int32_t s = trees.head[tree]; s >= 0; s = trees.next[s]) {
    const KeyRange keys = keys_of(g, s);
    for (int64_t i = 0; i < own_blocks(g, s); ++i) {
      const int64_t key = (first_own_block(g, s) + i) * kKeys, n = least(kKeys, keys.count - key);
      const auto row_at = [&](int64_t j) { return k + keys.row(key + j) * stride; };
      bf16* to = packed + (base[s] + i) * key_block_size(D);
      pack_left_columns(n, D, row_at, to);
      pack_left_columns(
          n, D, [&](int64_t j) { return row_at(j) + p.Hkv * D; }, to + kKeys * D);
      pack_left_rows(n, D, row_at, to + 2 * kKeys * D);
    }
  }
}

}  // namespace
}  // namespace westwind
