// Segments that share a prefix form a tree, and trees share no key: the work items of attention's backward.
#pragma once
#include "../scratch.h"
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
inline Trees find_trees(const Segments& g, Shortage& shortage) {
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

}  // namespace
}  // namespace westwind
