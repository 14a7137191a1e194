// How a packed row is cut into the work of the attention kernels. The segment arrays are on the device, so a kernel
// (kernels/attention_plan.cu) tests them and writes the lists below into the workspace; the attention kernels launched
// after it are given as many blocks as there can be tiles, and those past the count leave at once.
#pragma once
#include <stdint.h>

#include "fault.h"
#include "ops/attention.h"

namespace westwind {

// Rows of one segment that one block works on: `first` is a multiple of the tile size away from `start`, so that a tile
// looks the same wherever the segment stands. The logical keys of its rows: rows prefix_first .. + prefix_rows, then
// rows start ..
struct alignas(16) AttentionTile {
  int32_t first, rows;
  int32_t start, end;                 // rows of the segment
  int32_t prefix_first, prefix_rows;  // rows of its prefix segment; 0, 0: none
  int32_t segment;
  int32_t weight;  // rows of the other side that it sees or that see it: heavy tiles come first
};
static_assert(sizeof(AttentionTile) == 32, "host and fatbin read this struct by layout");

// Smallest and largest position of kPositionRows rows from a multiple of kPositionRows on.
struct PositionRange {
  int32_t low, high;
};
constexpr int kPositionRows = 64;

// Everything is on the device. Of a faulty row all counts are 0.
struct AttentionPlan {
  const int32_t* counts;         // query tiles, key tiles
  const AttentionTile* queries;  // tiles of query_rows rows
  const AttentionTile* keys;     // tiles of key_rows rows; null: not asked for
  const int32_t* child_first;    // [S+1], with `keys`: segments whose prefix is s are children[child_first[s]] ..
  const int32_t* children;       // [S], ascending for each s
  const PositionRange* ranges;   // [ceil(T / kPositionRows)]; null: no window
};
static_assert(sizeof(AttentionPlan) == 48, "host and fatbin read this struct by layout");

struct AttentionPlanParams {
  Segments segments;
  Fault* fault;
  int32_t* counts;         // [2]
  AttentionTile* queries;  // [most tiles]
  AttentionTile* keys;     // null: no key tiles and no children
  int32_t* first_tile;     // [2, S+1] working memory: the first tile of each segment
  int32_t* rank;           // [most query tiles + most key tiles] working memory: a tile's place in the list
  int32_t* child_rows;     // [S] working memory: rows of all children
  int32_t* child_first;    // [S+1]
  int32_t* children;       // [S]
  PositionRange* ranges;   // null: no window
  int64_t T;
  int32_t query_rows, key_rows;
  int32_t most_query_tiles;  // where the ranks of key tiles begin
  int32_t fault_number;      // of kFaultStart; the others follow
};
static_assert(sizeof(AttentionPlanParams) == 136, "host and fatbin read this struct by layout");

// What can be wrong with the segments, numbered in the order in which a segment is tested.
enum AttentionFault : int32_t { kFaultStart, kFaultAscend, kFaultPrefix, kFaultEnd, kFaultPosition, kAttentionFaults };

}  // namespace westwind
