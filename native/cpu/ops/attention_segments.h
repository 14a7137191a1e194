// Checks of the segment arrays of attention, and how they are cut into blocks of queries.
#pragma once
#include "attention_blocks.h"
#include "ops/attention.h"
#include "status.h"

namespace westwind {
namespace {

// `least_prefix`: kKeysOnly where a segment may have no queries, else −1.
inline Status check_attention(const char* op, const Segments& g, int32_t least_prefix, int64_t T, int32_t Hq,
                              int32_t Hkv, int32_t D) {
  if (T < 0 || Hq <= 0 || Hkv <= 0 || D <= 0 || Hq % Hkv != 0)
    return fail("%s: expected T >= 0, D >= 1 and Hq a multiple of Hkv, got T=%lld Hq=%d Hkv=%d D=%d", op,
                static_cast<long long>(T), Hq, Hkv, D);
  if (g.S < 0) return fail("%s: the number of segments must be >= 0, got %d", op, g.S);
  if (g.start[0] != 0) return fail("%s: segStart must begin with 0, got %d at index 0", op, g.start[0]);
  for (int32_t s = 0; s < g.S; ++s) {
    if (g.start[s + 1] < g.start[s])
      return fail("%s: segStart must ascend, got %d after %d at index %d", op, g.start[s + 1], g.start[s], s + 1);
    if (g.prefix[s] < least_prefix || g.prefix[s] >= s)
      return fail("%s: segPrefix must be %sor an earlier segment, got %d at index %d", op,
                  least_prefix == kKeysOnly ? "-2, -1 " : "-1 ", g.prefix[s], s);
  }
  if (g.start[g.S] != T)
    return fail("%s: segStart must end with T=%lld, got %d at index %d", op, static_cast<long long>(T), g.start[g.S],
                g.S);
  if (g.window > 0)
    for (int64_t t = 0; t < T; ++t)
      if (g.positions[t] < 0)
        return fail("%s: positions must be >= 0, got %d at index %lld", op, g.positions[t], static_cast<long long>(t));
  return {};
}

// The segment that block `block` belongs to: the last whose first block is not after it.
template <class Int>
inline int32_t segment_of(const Segments& g, const Int* first, int64_t block) {
  int32_t s = 0, above = g.S;
  while (above - s > 1) {
    const int32_t middle = s + (above - s) / 2;
    (first[middle] <= block ? s : above) = middle;
  }
  return s;
}

// The logical keys of a segment: the prefix segment's rows, then its own.
inline KeyRange keys_of(const Segments& g, int32_t s) {
  const int32_t prefix = g.prefix[s];
  const int64_t first = prefix < 0 ? 0 : g.start[prefix];
  const int64_t split = prefix < 0 ? 0 : g.start[prefix + 1] - g.start[prefix];
  return {first, split, g.start[s], split + g.start[s + 1] - g.start[s]};
}

}  // namespace
}  // namespace westwind
