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
#include "attention_trees.h"
#ifdef WESTWIND_ISA_amx
#include "attention_tiles_backward.h"
#endif

namespace westwind {
namespace {

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
    window_of(keys, key, n, g.positions, g.window, queries, &window);
    if (window.hides_all) continue;
    const int32_t* positions = window.positions();
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

// One item: a tree and a KV head.
struct Item {
  const AttentionBackwardParams& p;
  const Trees& trees;
  int64_t tree, kv_head, step;  // step: tokens of a query block
  Shortage& shortage;

  // body(segment, first token, tokens, place of the first own key, place of the first prefix key), in order.
  template <class Body>
  void blocks(const Body& body) const {
    const Segments& g = p.segments;
    for (int32_t s = trees.head[tree]; s >= 0; s = trees.next[s])
      for (int64_t begin = g.start[s]; begin < g.start[s + 1]; begin += step)
        body(s, begin, least(step, g.start[s + 1] - begin), trees.place[s],
             g.prefix[s] < 0 ? 0 : trees.place[g.prefix[s]]);
  }
};

// run(item, dk, dv) does an item's dQ and its sums [rows of the tree, Dp], dk still to be multiplied by dk_scale;
// false: no memory.
template <class T, class Run>
Status backward(const AttentionBackwardParams& p, float dk_scale, const Run& run) {
  const Segments& g = p.segments;
  const int64_t D = p.D, Dp = round_up(D, kWide), group = p.Hq / p.Hkv;
  Shortage shortage;
  const Trees trees = find_trees(g, shortage);
  parallel_for(static_cast<int64_t>(trees.count) * p.Hkv, [&](int64_t at) {
    const Item item{p, trees, at / p.Hkv, at % p.Hkv, group < kRows ? kRows / group : 1, shortage};
    const int64_t sums = trees.rows[item.tree] * Dp;
    if (sums == 0) return;
    float* dk = static_cast<float*>(scratch(Slot::kRows, 2 * 4 * sums, shortage));
    if (dk == nullptr) return;
    float* dv = dk + sums;
    memset(dk, 0, 2 * 4 * sums);
    if (!run(item, dk, dv)) return;

    for (int32_t s = trees.head[item.tree]; s >= 0; s = trees.next[s])
      for (int64_t t = g.start[s]; t < g.start[s + 1]; ++t) {
        const int64_t row = (trees.place[s] + t - g.start[s]) * Dp;
        T* to = static_cast<T*>(p.dqkv) + (t * (p.Hq + 2 * p.Hkv) + p.Hq + item.kv_head) * D;
        for_lanes(D, [&](int64_t d, auto lanes) {
          store(to + d, load(dk + row + d, lanes) * dk_scale, lanes);
          store(to + p.Hkv * D + d, load(dv + row + d, lanes), lanes);
        });
      }
  });
  return shortage.status();
}

template <class T>
Status backward_by_registers(const AttentionBackwardParams& p) {
  return backward<T>(p, 1, [&](const Item& item, float* dk, float* dv) {
    const Workspace w = workspace(item.step * (p.Hq / p.Hkv), p.D, round_up(p.D, kWide), item.shortage);
    if (w.q == nullptr) return false;
    item.blocks([&](int32_t s, int64_t begin, int64_t tokens, int64_t own_place, int64_t prefix_place) {
      backward_block<T>(p, s, begin, tokens, item.kv_head, own_place, prefix_place, w, dk, dv);
    });
    return true;
  });
}

#ifdef WESTWIND_ISA_amx

Status backward_by_tiles(const AttentionBackwardParams& p) {
  const Segments& g = p.segments;
  return backward<bf16>(p, p.scale, [&](const Item& item, float* dk, float* dv) {
    const int64_t units = (item.step * (p.Hq / p.Hkv) + kUnit - 1) / kUnit, size = key_block_size(p.D);
    const TileWorkspace w = tile_workspace(units, p.D, item.shortage);
    int64_t* base = static_cast<int64_t*>(scratch(Slot::kPackB, 8 * static_cast<int64_t>(g.S), item.shortage));
    if (w.dq == nullptr || base == nullptr) return false;
    int64_t key_blocks = 0;
    for (int32_t s = item.trees.head[item.tree]; s >= 0; s = item.trees.next[s]) {
      base[s] = key_blocks;
      key_blocks += own_blocks(g, s);
    }
    bf16* packed = static_cast<bf16*>(scratch(Slot::kPackA, key_blocks * size * sizeof(bf16), item.shortage));
    if (packed == nullptr) return false;
    pack_tree(p, item.trees, item.tree, item.kv_head, base, packed);
    item.blocks([&](int32_t s, int64_t begin, int64_t tokens, int64_t own_place, int64_t prefix_place) {
      const auto key_block = [&](int64_t key) {
        const bf16* k = packed + block_place(g, base, s, key) * size;
        return KeyBlock{k, k + kKeys * p.D, k + 2 * kKeys * p.D};
      };
      backward_on_tiles({p, s, begin, tokens, item.kv_head, own_place, prefix_place}, w, key_block, dk, dv);
    });
    return true;
  });
}

#endif

}  // namespace

namespace WESTWIND_ISA {

Status attention_backward(const AttentionBackwardParams& p) {
  const Status checked = check_attention("attention_backward", p.segments, -1, p.T, p.Hq, p.Hkv, p.D);
  if (!checked.ok) return checked;
#ifdef WESTWIND_ISA_amx
  if (p.dtype == DType::kBf16 && fits_tiles(p.D, p.scale)) return backward_by_tiles(p);
#endif
  return p.dtype == DType::kBf16 ? backward_by_registers<bf16>(p) : backward_by_registers<float>(p);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
