// attention: blocks of queries of one KV head, in parallel; each goes over the key blocks it sees
// (attention_rows.h). Limited by multiply-adds: 4·D per query head and visible key. Contract: ops/attention.h
#include "../ops.h"
#include "../parallel.h"
#include "attention_rows.h"
#include "attention_segments.h"

namespace westwind {
namespace {

template <class T>
Status attend_segments(const AttentionParams& p) {
  const Segments& g = p.segments;
  const int64_t group = p.Hq / p.Hkv, step = tokens_per_block(group);
  Shortage shortage;
  int32_t* first_block = static_cast<int32_t*>(scratch(Slot::kShared, 4 * (static_cast<int64_t>(g.S) + 1), shortage));
  if (first_block == nullptr) return shortage.status();
  first_block[0] = 0;
  for (int32_t s = 0; s < g.S; ++s) {
    const int64_t queries = g.prefix[s] == kKeysOnly ? 0 : g.start[s + 1] - g.start[s];
    first_block[s + 1] = first_block[s] + static_cast<int32_t>((queries + step - 1) / step);
  }
  const int64_t blocks = first_block[g.S];

  parallel_for(blocks * p.Hkv, [&](int64_t item) {
    const int64_t block = blocks - 1 - item / p.Hkv,
                  kv_head = item % p.Hkv;  // from the end: the long ones first
    int32_t s = 0, above = g.S;            // the last segment whose first block is not after `block`
    while (above - s > 1) {
      const int32_t middle = s + (above - s) / 2;
      (first_block[middle] <= block ? s : above) = middle;
    }
    const int64_t begin = g.start[s] + (block - first_block[s]) * step;
    const int64_t tokens = least(step, g.start[s + 1] - begin);
    const KeyRange keys = keys_of(g, s);
    int32_t seen[kRows];
    for (int64_t i = 0; i < tokens; ++i) seen[i] = static_cast<int32_t>(keys.split + begin + i - g.start[s] + 1);

    const int64_t D = p.D, stride = (p.Hq + 2 * p.Hkv) * D;
    const T* qkv = static_cast<const T*>(p.qkv);
    attend<T>({
        .tokens = tokens,
        .group = group,
        .D = D,
        .q = qkv + begin * stride + kv_head * group * D,
        .q_stride = stride,
        .out = static_cast<T*>(p.out) + (begin * p.Hq + kv_head * group) * D,
        .out_stride = p.Hq * D,
        .lse = p.lse + kv_head * group * p.T + begin,
        .lse_stride = p.T,
        .k = qkv + (p.Hq + kv_head) * D,
        .v = qkv + (p.Hq + p.Hkv + kv_head) * D,
        .kv_stride = stride,
        .keys = keys,
        .seen = seen,
        .window = g.window,
        .query_positions = g.positions + begin,
        .key_positions = g.positions,
        .scale = p.scale,
        .shortage = shortage,
    });
  });
  return shortage.status();
}

}  // namespace

namespace WESTWIND_ISA {

Status attention(const AttentionParams& p) {
  const Status checked = check_attention("attention", p.segments, kKeysOnly, p.T, p.Hq, p.Hkv, p.D);
  if (!checked.ok) return checked;
  return p.dtype == DType::kBf16 ? attend_segments<bf16>(p) : attend_segments<float>(p);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
