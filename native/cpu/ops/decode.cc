// kv_append, kv_gather and decode_attention: new tokens over a cache of keys and values. The order of keys and the
// arithmetic are those of attention (attention_rows.h, attention_tiles_rows.h): a generated token gets the bits that
// the whole sequence would give it. One new token per slot is limited by reading K and V, once for all query heads of a
// KV head. Contract: ops/decode.h
#include "ops/decode.h"

#include "../ops.h"
#include "../parallel.h"
#include "attention_rows.h"
#ifdef WESTWIND_ISA_amx
#include "attention_tiles_rows.h"
#endif

namespace westwind {
namespace {

struct Cache {
  int64_t slots, length;
  int32_t Hq, Hkv, D;
};

Status check_rows(const char* op, const Cache& c, int64_t T, const int32_t* slot, const int32_t* position) {
  if (T < 0 || c.slots < 0 || c.length < 0 || c.Hq <= 0 || c.Hkv <= 0 || c.D <= 0 || c.Hq % c.Hkv != 0)
    return fail("%s: expected T, slots, length >= 0, D >= 1, Hq a multiple of Hkv, got %lld, %lld, %lld, %d, %d/%d", op,
                static_cast<long long>(T), static_cast<long long>(c.slots), static_cast<long long>(c.length), c.D, c.Hq,
                c.Hkv);
  for (int64_t t = 0; t < T; ++t) {
    if (slot[t] < 0 || slot[t] >= c.slots)
      return fail("%s: slot must be in [0, %lld), got %d at index %lld", op, static_cast<long long>(c.slots), slot[t],
                  static_cast<long long>(t));
    if (position[t] < 0 || position[t] >= c.length)
      return fail("%s: position must be in [0, %lld), got %d at index %lld", op, static_cast<long long>(c.length),
                  position[t], static_cast<long long>(t));
  }
  return {};
}

template <class T>
void append(const KvAppendParams& p) {
  const int64_t D = p.D, stride = (p.Hq + 2 * p.Hkv) * D;
  // By heads, rows in order: where two rows name one place, the later stays, whatever the threads.
  parallel_for(p.Hkv, [&](int64_t head) {
    for (int64_t t = 0; t < p.T; ++t) {
      const int64_t at = ((p.slot[t] * p.length + p.position[t]) * p.Hkv + head) * D;
      const T* k = static_cast<const T*>(p.qkv) + t * stride + (p.Hq + head) * D;
      memcpy(static_cast<T*>(p.k_cache) + at, k, sizeof(T) * D);
      memcpy(static_cast<T*>(p.v_cache) + at, k + p.Hkv * D, sizeof(T) * D);
    }
  });
}

template <class T>
void gather(const KvGatherParams& p) {
  const int64_t row = p.Hkv * p.D, stride = (p.Hq + 2 * p.Hkv) * p.D;
  parallel_for(p.T, [&](int64_t t) {
    const int64_t at = (p.slot[t] * p.length + p.position[t]) * row;
    T* k = static_cast<T*>(p.qkv) + t * stride + p.Hq * p.D;
    memcpy(k, static_cast<const T*>(p.k_cache) + at, sizeof(T) * row);
    memcpy(k + row, static_cast<const T*>(p.v_cache) + at, sizeof(T) * row);
  });
}

// Rows of one slot that follow each other in ascending position (a prompt) share the packed keys, up to a
// block of rows. Returns the number of blocks; block b is rows begin[b] .. begin[b + 1] − 1.
int64_t cut_rows(const DecodeAttentionParams& p, int64_t most, int64_t* begin) {
  int64_t blocks = 0;
  for (int64_t t = 0; t < p.T; ++t) {
    const bool joins = t > 0 && p.slot[t] == p.slot[t - 1] && p.position[t] >= p.position[t - 1];
    if (joins && t - begin[blocks - 1] < most) continue;
    begin[blocks++] = t;
  }
  begin[blocks] = p.T;
  return blocks;
}

#ifdef WESTWIND_ISA_amx

// Packs each block of keys for itself: no other rows share them.
void attend_cache_on_tiles(const QueryBlock<bf16>& p) {
  const int64_t D = p.D;
  bf16* packed = static_cast<bf16*>(scratch(Slot::kPackA, kPackedKeys * D * sizeof(bf16), p.shortage));
  if (packed == nullptr) return;
  attend_on_tiles(p, [&](int64_t key, int n) {
    const auto row = [&](int64_t i) { return p.keys.row(key + i) * p.kv_stride; };
    pack_keys(
        n, D, [&](int64_t i) { return p.k + row(i); }, [&](int64_t i) { return p.v + row(i); }, packed);
    fetch_ahead(p.k, p.v, p.kv_stride, D, p.keys, key + kKeys, p.keys.count);
    return packed;
  });
}

#endif

template <class T>
Status attend_cache(const DecodeAttentionParams& p) {
  const int64_t group = p.Hq / p.Hkv, D = p.D, stride = (p.Hq + 2 * p.Hkv) * D;
  Shortage shortage;
  int64_t* first = static_cast<int64_t*>(scratch(Slot::kShared, 8 * (p.T + 1), shortage));
  if (first == nullptr) return shortage.status();
  const int64_t blocks = cut_rows(p, tokens_per_block(group), first);

  parallel_for(blocks * p.Hkv, [&](int64_t item) {
    const int64_t block = blocks - 1 - item / p.Hkv, kv_head = item % p.Hkv;
    const int64_t begin = first[block], tokens = first[block + 1] - begin;
    int32_t seen[kRows];
    for (int64_t i = 0; i < tokens; ++i) seen[i] = p.position[begin + i] + 1;
    const int64_t entries = (p.slot[begin] * p.length * p.Hkv + kv_head) * D;
    const QueryBlock<T> queries{
        .tokens = tokens,
        .group = group,
        .D = D,
        .q = static_cast<const T*>(p.qkv) + begin * stride + kv_head * group * D,
        .q_stride = stride,
        .out = static_cast<T*>(p.out) + (begin * p.Hq + kv_head * group) * D,
        .out_stride = p.Hq * D,
        .lse = nullptr,
        .lse_stride = 0,
        .k = static_cast<const T*>(p.k_cache) + entries,
        .v = static_cast<const T*>(p.v_cache) + entries,
        .kv_stride = p.Hkv * D,
        .keys = {0, seen[tokens - 1], 0, seen[tokens - 1]},
        .seen = seen,
        .window = p.window,
        .query_positions = p.position + begin,
        .key_positions = nullptr,
        .scale = p.scale,
        .shortage = shortage,
    };
#ifdef WESTWIND_ISA_amx
    if constexpr (sizeof(T) == sizeof(bf16))
      if (fits_tiles(D, p.scale)) return attend_cache_on_tiles(queries);
#endif
    attend(queries);
  });
  return shortage.status();
}

}  // namespace

namespace WESTWIND_ISA {

Status kv_append(const KvAppendParams& p) {
  const Status checked = check_rows("kv_append", {p.slots, p.length, p.Hq, p.Hkv, p.D}, p.T, p.slot, p.position);
  if (!checked.ok) return checked;
  if (p.dtype == DType::kBf16)
    append<bf16>(p);
  else
    append<float>(p);
  return {};
}

Status kv_gather(const KvGatherParams& p) {
  const Status checked = check_rows("kv_gather", {p.slots, p.length, p.Hq, p.Hkv, p.D}, p.T, p.slot, p.position);
  if (!checked.ok) return checked;
  p.dtype == DType::kBf16 ? gather<bf16>(p) : gather<float>(p);
  return {};
}

Status decode_attention(const DecodeAttentionParams& p) {
  const Status checked = check_rows("decode_attention", {p.slots, p.length, p.Hq, p.Hkv, p.D}, p.T, p.slot, p.position);
  if (!checked.ok) return checked;
  return p.dtype == DType::kBf16 ? attend_cache<bf16>(p) : attend_cache<float>(p);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
