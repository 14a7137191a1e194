// What the kernels of embedding_backward and scatter_add_rows get beside the contract.
#pragma once
#include "ops/embedding.h"
#include "params/fault.h"

namespace westwind {

// A row number and its place, row << 32 | place: sorted, the places of a row stand together in ascending order. No two
// are equal, so that any way of sorting gives the same list.
using RowKey = int64_t;
constexpr int kSortTile = 2048;  // keys that one block sorts

struct SortRowsLaunch {
  const int32_t* rows;  // [n]
  RowKey* keys;         // [n], sorted within tiles of kSortTile
  int64_t n;
};

struct MergeRowsLaunch {
  const RowKey* from;  // [n], sorted within runs of `run`
  RowKey* to;          // [n], sorted within runs of 2·run
  int64_t n, run;
};

struct EmbeddingLaunch {
  EmbeddingParams p;
  const Fault* fault;
};
static_assert(sizeof(EmbeddingLaunch) == 64, "host and kernel read this struct by layout");

struct EmbeddingBackwardLaunch {
  EmbeddingBackwardParams p;
  const Fault* fault;
  const RowKey* keys;  // [T], sorted
};
static_assert(sizeof(EmbeddingBackwardLaunch) == 72, "host and kernel read this struct by layout");

struct ScatterAddRowsLaunch {
  ScatterAddRowsParams p;
  const Fault* fault;
  const RowKey* keys;  // [N], sorted
  int32_t* starts;     // [R]: where the keys of row r begin, if it has some
};
static_assert(sizeof(ScatterAddRowsLaunch) == 80, "host and kernel read this struct by layout");

}  // namespace westwind
