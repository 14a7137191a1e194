// Where packed blocks of keys lie when all queries share them. A segment has its own key blocks, in logical order, from
// the first that is not wholly the prefix's; those before it are the prefix's blocks of the same number, if the prefix
// has no prefix itself (else its blocks begin elsewhere, and the segment has all its blocks).
#pragma once
#include "attention_segments.h"

namespace westwind {
namespace {

inline int64_t first_own_block(const Segments& g, int32_t s) {
  const int32_t prefix = g.prefix[s];
  return prefix >= 0 && g.prefix[prefix] < 0 ? (g.start[prefix + 1] - g.start[prefix]) / kKeys : 0;
}

// Of keys alone, only whole blocks are anyone else's.
inline int64_t own_blocks(const Segments& g, int32_t s) {
  const int64_t rows = g.start[s + 1] - g.start[s];
  if (g.prefix[s] == kKeysOnly) return rows / kKeys;
  return rows == 0 ? 0 : (keys_of(g, s).count + kKeys - 1) / kKeys - first_own_block(g, s);
}

// The place of the block from logical key `key` on of segment s; base[s] is the place of a segment's first own block.
inline int64_t block_place(const Segments& g, const int64_t* base, int32_t s, int64_t key) {
  const int64_t block = key / kKeys, first = first_own_block(g, s);
  return block < first ? base[g.prefix[s]] + block : base[s] + block - first;
}

}  // namespace
}  // namespace westwind
