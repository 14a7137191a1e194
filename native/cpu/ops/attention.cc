// attention: blocks of queries of one KV head, in parallel; each goes over the key blocks it sees (attention_rows.h, on
// tiles attention_tiles_rows.h). Limited by multiply-adds: 4·D per query head and visible key. Contract:
// ops/attention.h
#include "../ops.h"
#include "../parallel.h"
#include "attention_rows.h"
#include "attention_segments.h"
#ifdef WESTWIND_ISA_amx
#include "attention_packed.h"
#include "attention_tiles_rows.h"
#endif

namespace westwind {
namespace {

// The segments cut into blocks of at most `step` queries.
struct QueryBlocks {
  int64_t step, count;
  int32_t* first;  // [S + 1] a segment's first block
};

inline QueryBlocks cut_segments(const Segments& g, int64_t step, int32_t* first) {
  first[0] = 0;
  for (int32_t s = 0; s < g.S; ++s) {
    const int64_t queries = g.prefix[s] == kKeysOnly ? 0 : g.start[s + 1] - g.start[s];
    first[s + 1] = first[s] + static_cast<int32_t>((queries + step - 1) / step);
  }
  return {step, first[g.S], first};
}

// body(segment, block of queries) of one block and KV head.
template <class T, class Body>
inline void with_block(const AttentionParams& p, const QueryBlocks& blocks, int64_t block, int64_t kv_head,
                       Shortage& shortage, const Body& body) {
  const Segments& g = p.segments;
  const int64_t group = p.Hq / p.Hkv;
  const int32_t s = segment_of(g, blocks.first, block);
  const int64_t begin = g.start[s] + (block - blocks.first[s]) * blocks.step;
  const int64_t tokens = least(blocks.step, g.start[s + 1] - begin);
  const KeyRange keys = keys_of(g, s);
  int32_t seen[kRows];
  for (int64_t i = 0; i < tokens; ++i) seen[i] = static_cast<int32_t>(keys.split + begin + i - g.start[s] + 1);

  const int64_t D = p.D, stride = (p.Hq + 2 * p.Hkv) * D;
  const T* qkv = static_cast<const T*>(p.qkv);
  body(s, QueryBlock<T>{
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
}

template <class T>
Status attend_segments(const AttentionParams& p) {
  const Segments& g = p.segments;
  Shortage shortage;
  int32_t* first = static_cast<int32_t*>(scratch(Slot::kShared, 4 * (static_cast<int64_t>(g.S) + 1), shortage));
  if (first == nullptr) return shortage.status();
  const QueryBlocks blocks = cut_segments(g, tokens_per_block(p.Hq / p.Hkv), first);
  parallel_for(blocks.count * p.Hkv, [&](int64_t item) {
    const int64_t block = blocks.count - 1 - item / p.Hkv;  // from the end: the long ones first
    with_block<T>(p, blocks, block, item % p.Hkv, shortage,
                  [](int32_t, const QueryBlock<T>& queries) { attend(queries); });
  });
  return shortage.status();
}

#ifdef WESTWIND_ISA_amx

// Keys and values of as many heads as fit are packed at a time, once for all their queries.
constexpr int64_t kPackedBytes = int64_t{8} << 20;

Status attend_segments_on_tiles(const AttentionParams& p) {
  const Segments& g = p.segments;
  const int64_t D = p.D, S = g.S;
  Shortage shortage;
  int64_t* base = static_cast<int64_t*>(scratch(Slot::kShared, 8 * (S + 1) + 4 * (S + 1), shortage));
  if (base == nullptr) return shortage.status();
  const QueryBlocks blocks = cut_segments(g, tokens_per_block(p.Hq / p.Hkv), reinterpret_cast<int32_t*>(base + S + 1));
  base[0] = 0;
  for (int32_t s = 0; s < g.S; ++s) base[s + 1] = base[s] + own_blocks(g, s);
  const int64_t key_blocks = base[S], block_size = kPackedKeys * D, head_size = key_blocks * block_size;
  if (key_blocks == 0) return {};
  const int64_t fitting = kPackedBytes / (head_size * static_cast<int64_t>(sizeof(bf16)));
  const int64_t heads = fitting < 1 ? 1 : least(fitting, p.Hkv);
  bf16* packed = static_cast<bf16*>(scratch(Slot::kPackA, heads * head_size * sizeof(bf16), shortage));
  if (packed == nullptr) return shortage.status();

  for (int64_t head = 0; head < p.Hkv; head += heads) {
    const int64_t count = least(heads, p.Hkv - head);
    parallel_ranges(key_blocks * count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t of = item / key_blocks, block = item % key_blocks;
        const int32_t s = segment_of(g, base, block);
        const KeyRange keys = keys_of(g, s);
        const int64_t key = (first_own_block(g, s) + block - base[s]) * kKeys, stride = (p.Hq + 2 * p.Hkv) * D;
        const bf16* k = static_cast<const bf16*>(p.qkv) + (p.Hq + head + of) * D;
        const auto row_at = [&](int64_t i) { return k + keys.row(key + i) * stride; };
        pack_keys(
            least(kKeys, keys.count - key), D, row_at, [&](int64_t i) { return row_at(i) + p.Hkv * D; },
            packed + of * head_size + block * block_size);
      }
    });
    parallel_for(blocks.count * count, [&](int64_t item) {
      // By heads, so that one's keys stay in the cache; from the end, the long ones first.
      const int64_t of = item / blocks.count, block = blocks.count - 1 - item % blocks.count;
      with_block<bf16>(p, blocks, block, head + of, shortage, [&](int32_t s, const QueryBlock<bf16>& queries) {
        attend_on_tiles(queries, [&](int64_t key, int) {
          return packed + of * head_size + block_place(g, base, s, key) * block_size;
        });
      });
    });
  }
  return shortage.status();
}

#endif

}  // namespace

namespace WESTWIND_ISA {

Status attention(const AttentionParams& p) {
  const Status checked = check_attention("attention", p.segments, kKeysOnly, p.T, p.Hq, p.Hkv, p.D);
  if (!checked.ok) return checked;
#ifdef WESTWIND_ISA_amx
  if (p.dtype == DType::kBf16 && fits_tiles(p.D, p.scale)) return attend_segments_on_tiles(p);
#endif
  return p.dtype == DType::kBf16 ? attend_segments<bf16>(p) : attend_segments<float>(p);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
