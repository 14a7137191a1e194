// attention_backward: weights again from lse, five matrix products per pair of blocks, each done once.
//
//   P = exp(S − lse)     delta = rowsum(dO ∘ O)     dP = dO Vᵀ     dS = P ∘ (dP − delta)
//
//   dV = Pᵀ dO     dQ = scale · dS K     dK = dSᵀ (scale · Q)
//
// (FlashAttention-2, arXiv:2307.08691)
//
// Segments that share a prefix form a tree, and trees share no key. One work item is a tree and a KV head: it
// goes over its query blocks in order, finishes each block's dQ, and adds dK and dV up in f32 in its own
// memory. So sums have one order whatever the threads, and nothing is recomputed; a pass over keys and
// another over queries would need seven products. The price: a row of one document has only Hkv items.
// Contract: ops/attention.h
#include "../ops.h"
#include "../parallel.h"
#include "../scratch.h"
#include "attention_blocks.h"
#include "attention_segments.h"

namespace westwind {
namespace {

// The trees: each is the list of its segments in order, and every segment has a place among the tree's rows.
struct Trees {
  int32_t count;
  int32_t* head;   // [count] first segment
  int32_t* next;   // [S] next segment of the same tree, or −1
  int64_t* rows;   // [count] rows of the tree
  int64_t* place;  // [S] of a segment's first row among the rows of its tree
};

// With null pointers where there is no memory.
Trees find_trees(const Segments& g, Shortage& shortage) {
  const int64_t S = g.S;
  int64_t* wide = static_cast<int64_t*>(scratch(Slot::kShared, (2 * 8 + 4 * 4) * (S + 1), shortage));
  if (wide == nullptr) return {};
  int32_t* narrow = reinterpret_cast<int32_t*>(wide + 2 * S);
  Trees trees{0, narrow, narrow + S, wide, wide + S};
  int32_t* tree_of = narrow + 2 * S;
  int32_t* tail = narrow + 3 * S;
  for (int32_t s = 0; s < g.S; ++s) {
    const bool root = g.prefix[s] < 0;
    const int32_t tree = root ? trees.count++ : tree_of[g.prefix[s]];
    tree_of[s] = tree;
    if (root) {
      trees.head[tree] = s;
      trees.rows[tree] = 0;
    } else {
      trees.next[tail[tree]] = s;
    }
    tail[tree] = s;
    trees.next[s] = -1;
    trees.place[s] = trees.rows[tree];
    trees.rows[tree] += g.start[s + 1] - g.start[s];
  }
  return trees;
}

// Working memory of one thread; sizes for blocks of `rows` query rows.
struct Workspace {
  float *q, *dout;                // [rows, D]: what register tiles broadcast from; q is times scale
  float *q_panels, *dout_panels;  // the same as panels
  float *k_columns, *v_columns;   // transposed panels of the key block
  float *k_panels, *dkv;          // row panels of K; [kKeys, Dp] this block pair's part of dK or dV
  float *weights, *dscores;       // [rows, kKeys]
  float* dq;                      // [rows, Dp]
  float *lse, *delta;             // [rows]
};

// With null pointers where there is no memory.
Workspace workspace(int64_t rows, int64_t D, int64_t Dp, Shortage& shortage) {
  const int64_t sizes[] = {rows * D,   rows * D,     rows * Dp,    rows * Dp, kKeys * D, kKeys * D, kKeys * Dp,
                           kKeys * Dp, rows * kKeys, rows * kKeys, rows * Dp, rows,      rows};
  int64_t total = 0;
  for (const int64_t size : sizes) total += round_up(size, 16);
  float* at = static_cast<float*>(scratch(Slot::kBlock, 4 * total, shortage));
  if (at == nullptr) return {};
  float* part[13];
  for (int i = 0; i < 13; ++i) {
    part[i] = at;
    at += round_up(sizes[i], 16);
  }
  return {part[0], part[1], part[2], part[3],  part[4],  part[5], part[6],
          part[7], part[8], part[9], part[10], part[11], part[12]};
}

// dP in dscores and S in weights become dS and P: one row.
inline void differentiate_row(float* weights, float* dscores, int visible, const int32_t* key_positions, int32_t oldest,
                              float lse, float delta) {
  const bool masked = visible < kKeys || key_positions != nullptr;
  const vf by = splat(lse), less = splat(delta);
  for (int key = 0; key < kKeys; key += kLanes) {
    vf p = exp_of_negative(load(weights + key) - by);
    vf ds = p * (load(dscores + key) - less);
    if (masked) {
      const vi mask = mask_of(key, visible, key_positions, oldest);
      p = select(mask, p, vf{});
      ds = select(mask, ds, vf{});
    }
    store(weights + key, p);
    store(dscores + key, ds);
  }
}

// One query block of segment s against all its keys; dk and dv have the rows of the segment's tree.
template <class T>
void backward_block(const AttentionBackwardParams& p, int32_t s, int64_t begin, int64_t tokens, int64_t kv_head,
                    int64_t own_place, int64_t prefix_place, const Workspace& w, float* dk, float* dv) {
  const Segments& g = p.segments;
  const int64_t D = p.D, Dp = round_up(D, kWide), group = p.Hq / p.Hkv, rows = tokens * group;
  const int64_t stride = (p.Hq + 2 * p.Hkv) * D;
  const T* qkv = static_cast<const T*>(p.qkv);
  const T* out = static_cast<const T*>(p.out);
  const T* dout = static_cast<const T*>(p.dout);
  const T* k = qkv + (p.Hq + kv_head) * D;
  const T* v = k + p.Hkv * D;
  const auto q_row = [&](int64_t r) { return qkv + (begin + r / group) * stride + (kv_head * group + r % group) * D; };
  const auto out_at = [&](int64_t r) { return ((begin + r / group) * p.Hq + kv_head * group + r % group) * D; };

  for (int64_t r = 0; r < rows; ++r) {
    const T* from = q_row(r);
    const T* o = out + out_at(r);
    const T* d_out = dout + out_at(r);
    float delta = 0;
    for (int64_t d = 0; d < D; ++d) {
      w.q[r * D + d] = to_float(from[d]) * p.scale;
      w.dout[r * D + d] = to_float(d_out[d]);
      delta += to_float(o[d]) * to_float(d_out[d]);
    }
    w.delta[r] = delta;
    w.lse[r] = p.lse[(kv_head * group + r % group) * p.T + begin + r / group];
  }
  pack_rows<T>(rows, D, rows, p.scale, q_row, w.q_panels);
  pack_rows<T>(
      rows, D, rows, 1, [&](int64_t r) { return dout + out_at(r); }, w.dout_panels);
  memset(w.dq, 0, sizeof(float) * rows * Dp);

  const Span queries = g.window > 0 ? span_of(g.positions + begin, tokens) : Span{};
  const KeyRange keys = keys_of(g, s);
  const int64_t seen = keys.split + begin - g.start[s] + 1;  // by the first token; one more by each next
  BlockWindow window;
  for (int64_t key = 0; key < seen + tokens - 1; key += kKeys) {
    const int n = static_cast<int>(least(kKeys, keys.count - key));
    const int32_t* positions = nullptr;
    if (g.window > 0) {
      window_of(keys, key, n, g.positions, g.window, queries, &window);
      if (window.hides_all) continue;
      if (window.hides_some) positions = window.position;
    }
    const auto k_row = [&](int64_t i) { return k + keys.row(key + i) * stride; };
    pack_transposed<T>(n, D, k_row, w.k_columns);
    pack_transposed<T>(
        n, D, [&](int64_t i) { return v + keys.row(key + i) * stride; }, w.v_columns);
    pack_rows<T>(n, D, kKeys, 1, k_row, w.k_panels);

    const auto visible = [&](int64_t r) {
      const int64_t count = seen + r / group - key;
      return static_cast<int>(count < 0 ? 0 : least(count, kKeys));
    };
    const int M = static_cast<int>(rows);
    scores(M, D, w.q, w.k_columns, w.weights, visible);
    scores(M, D, w.dout, w.v_columns, w.dscores, visible);
    for (int r = 0; r < M; ++r)
      differentiate_row(w.weights + r * kKeys, w.dscores + r * kKeys, visible(r), positions,
                        positions == nullptr ? 0 : g.positions[begin + r / group] - g.window + 1, w.lse[r], w.delta[r]);
    add_weighted(M, Dp, w.dscores, w.k_panels, w.dq, visible);

    // dK and dV of this pair of blocks, a tile of keys at a time, over the rows that see its first key.
    const auto add_to_keys = [&](const float* a, const float* panels, float* sums) {
      for (int64_t d = 0; d < Dp; d += kWide)
        for (int j = 0; j < n; j += kTile) {
          const int64_t hidden = key + j + 1 - seen;  // tokens before the first that sees key j
          const int64_t from = hidden > 0 ? hidden * group : 0;
          tile<true>(static_cast<int>(least(kTile, n - j)), from < rows ? rows - from : 0, a + from * kKeys + j, kKeys,
                     panels + (d / kWide * rows + from) * kWide, w.dkv + j * Dp + d, Dp, false);
        }
      for (int64_t j = 0; j < n; ++j) {
        const int64_t at = key + j < keys.split ? prefix_place + key + j : own_place + key + j - keys.split;
        for (int64_t d = 0; d < Dp; d += kLanes)
          store(sums + at * Dp + d, load(sums + at * Dp + d) + load(w.dkv + j * Dp + d));
      }
    };
    add_to_keys(w.weights, w.dout_panels, dv);
    add_to_keys(w.dscores, w.q_panels, dk);
  }

  for (int64_t r = 0; r < rows; ++r) {
    T* to = static_cast<T*>(p.dqkv) + (begin + r / group) * stride + (kv_head * group + r % group) * D;
    for (int64_t d = 0; d < D; ++d) store(to + d, w.dq[r * Dp + d] * p.scale);
  }
}

template <class T>
Status backward(const AttentionBackwardParams& p) {
  const Segments& g = p.segments;
  const int64_t D = p.D, Dp = round_up(D, kWide), group = p.Hq / p.Hkv;
  const int64_t step = group < kRows ? kRows / group : 1;
  Shortage shortage;
  const Trees trees = find_trees(g, shortage);
  parallel_for(static_cast<int64_t>(trees.count) * p.Hkv, [&](int64_t item) {
    const int64_t tree = item / p.Hkv, kv_head = item % p.Hkv, sums = trees.rows[tree] * Dp;
    if (sums == 0) return;
    const Workspace w = workspace(step * group, D, Dp, shortage);
    float* dk = static_cast<float*>(scratch(Slot::kRows, 2 * 4 * sums, shortage));
    if (w.q == nullptr || dk == nullptr) return;
    float* dv = dk + sums;
    memset(dk, 0, 2 * 4 * sums);
    for (int32_t s = trees.head[tree]; s >= 0; s = trees.next[s])
      for (int64_t begin = g.start[s]; begin < g.start[s + 1]; begin += step)
        backward_block<T>(p, s, begin, least(step, g.start[s + 1] - begin), kv_head, trees.place[s],
                          g.prefix[s] < 0 ? 0 : trees.place[g.prefix[s]], w, dk, dv);

    for (int32_t s = trees.head[tree]; s >= 0; s = trees.next[s])
      for (int64_t t = g.start[s]; t < g.start[s + 1]; ++t) {
        const int64_t at = (trees.place[s] + t - g.start[s]) * Dp;
        T* to = static_cast<T*>(p.dqkv) + (t * (p.Hq + 2 * p.Hkv) + p.Hq + kv_head) * D;
        for (int64_t d = 0; d < D; ++d) {
          store(to + d, dk[at + d]);
          store(to + p.Hkv * D + d, dv[at + d]);
        }
      }
  });
  return shortage.status();
}

}  // namespace

namespace WESTWIND_ISA {

Status attention_backward(const AttentionBackwardParams& p) {
  const Status checked = check_attention("attention_backward", p.segments, -1, p.T, p.Hq, p.Hkv, p.D);
  if (!checked.ok) return checked;
  return p.dtype == DType::kBf16 ? backward<bf16>(p) : backward<float>(p);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
