#include "params/embedding.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr int64_t kAddThreads = 128, kColumns = 4;  // columns of one thread of a sum
constexpr int64_t kMostRows = int64_t{1} << 31;

unsigned blocks(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

constexpr const char *kSort = "sort_rows", *kMerge = "merge_rows", *kStarts = "scatter_add_rows_starts";

unsigned add_threads(int64_t C) {
  return static_cast<unsigned>(std::min(kAddThreads, (C + 32 * kColumns - 1) / (32 * kColumns) * 32));
}

// As many as a tile of n keys has pairs, by warps.
unsigned sort_threads(int64_t n) {
  return static_cast<unsigned>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(n, 64, kSortTile)))) / 2;
}

// Enqueues the sorting of n >= 1 row numbers in `memory`, room for 2·n keys; *keys: where the sorted ones will be.
Status sort_rows(Context& context, const int32_t* rows, int64_t n, RowKey* memory, const RowKey** keys) {
  RowKey *from = memory, *to = memory + n;
  Status status = context.launch(kSort, {{blocks(n, kSortTile)}, sort_threads(n)}, SortRowsLaunch{rows, from, n});
  for (int64_t run = kSortTile; status.ok && run < n; run *= 2) {
    status = context.launch(kMerge, {{blocks(n, 256)}, 256}, MergeRowsLaunch{from, to, n, run});
    std::swap(from, to);
  }
  *keys = from;
  return status;
}

}  // namespace

void add_embedding_names(Names& out) {
  out.insert(out.end(), {kSort, kMerge, kStarts});
  for (const char* op : {"embedding", "embedding_backward", "scatter_add_rows"})
    for (const DType dtype : kFloats) out.push_back(kernel_of(op, dtype));
}

Status embedding(Context& context, const EmbeddingParams& p) {
  const Status status = context.check_range("embedding", "ids", p.ids, p.T, p.V);
  if (!status.ok || p.T == 0 || p.C == 0) return status;
  return context.launch(kernel_of("embedding", p.dtype), {{blocks(p.T, 4)}, 256}, EmbeddingLaunch{p, context.fault()});
}

Status embedding_backward(Context& context, const EmbeddingBackwardParams& p) {
  Status status = context.check_range("embedding_backward", "ids", p.ids, p.T, p.V);
  if (!status.ok || p.T == 0 || p.C == 0) return status;
  if (p.T >= kMostRows) return fail("embedding_backward: T must be below 2^31, got %lld", static_cast<long long>(p.T));
  RowKey* memory = nullptr;
  status = context.workspace(2 * p.T * 8, &memory);
  if (!status.ok) return status;
  EmbeddingBackwardLaunch launch{p, context.fault(), nullptr};
  status = sort_rows(context, p.ids, p.T, memory, &launch.keys);
  if (!status.ok) return status;
  return context.launch(kernel_of("embedding_backward", p.dtype),
                        {{static_cast<unsigned>(p.T), blocks(p.C, kAddThreads * kColumns)}, add_threads(p.C)}, launch);
}

Status scatter_add_rows(Context& context, const ScatterAddRowsParams& p) {
  Status status = context.check_range("scatter_add_rows", "index", p.index, p.N, p.R);
  if (!status.ok || p.R == 0 || p.C == 0) return status;
  if (p.N >= kMostRows || p.R >= kMostRows)
    return fail("scatter_add_rows: N and R must be below 2^31, got %lld and %lld", static_cast<long long>(p.N),
                static_cast<long long>(p.R));
  RowKey* memory = nullptr;
  status = context.workspace(2 * p.N * 8 + p.R * 4, &memory);
  if (!status.ok) return status;
  ScatterAddRowsLaunch launch{p, context.fault(), memory, reinterpret_cast<int32_t*>(memory + 2 * p.N)};
  if (p.N > 0) status = sort_rows(context, p.index, p.N, memory, &launch.keys);
  if (status.ok) status = context.launch(kStarts, {{blocks(p.R, 256)}, 256}, launch);
  if (!status.ok) return status;
  return context.launch(kernel_of("scatter_add_rows", p.dtype),
                        {{static_cast<unsigned>(p.R), blocks(p.C, kAddThreads * kColumns)}, add_threads(p.C)}, launch);
}

}  // namespace westwind::cuda
