// embedding and the row moves. Row numbers are checked before anything is written. Limited by memory
// bandwidth. Contract: ops/embedding.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {
namespace {

constexpr int64_t kRangeBytes = 32768;  // rows of one parallel range hold about this much
constexpr int64_t kColumns = 64;        // columns of one parallel range: four cache lines of f32

int64_t rows_per_range(int64_t row_bytes) {
  return row_bytes >= kRangeBytes ? 1 : kRangeBytes / (row_bytes > 0 ? row_bytes : 1);
}

Status check_rows(const char* op, const char* what, const int32_t* rows, int64_t n, int64_t limit) {
  for (int64_t i = 0; i < n; ++i) {
    if (rows[i] >= 0 && rows[i] < limit) continue;
    return fail("%s: %s must be 0 <= row < %lld, got %d at index %lld", op, what, static_cast<long long>(limit),
                rows[i], static_cast<long long>(i));
  }
  return {};
}

// A column range belongs to one thread, which walks all t: ascending t without sorting.
template <class T>
void add_to_table(const EmbeddingBackwardParams& p) {
  parallel_ranges(p.C, kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < p.T; ++t) {
      const T* from = static_cast<const T*>(p.dout) + t * p.C + begin;
      float* to = p.dtable + p.ids[t] * p.C + begin;
      for_lanes(end - begin,
                [&](int64_t i, auto lanes) { store(to + i, load(to + i, lanes) + load(from + i, lanes), lanes); });
    }
  });
}

// sources[starts[r] .. starts[r + 1]): the rows n with index[n] = r, ascending.
void group_by_destination(const int32_t* index, int64_t N, int64_t R, int64_t* starts, int64_t* sources) {
  memset(starts, 0, static_cast<size_t>(R + 1) * sizeof(int64_t));
  for (int64_t n = 0; n < N; ++n) ++starts[index[n] + 1];
  for (int64_t r = 0; r < R; ++r) starts[r + 1] += starts[r];
  for (int64_t n = 0; n < N; ++n) sources[starts[index[n]]++] = n;
  for (int64_t r = R; r > 0; --r) starts[r] = starts[r - 1];
  starts[0] = 0;
}

template <class T>
void sum_rows(const T* x, const int64_t* sources, int64_t count, int64_t C, T* out, Shortage& shortage) {
  if (count == 0) {
    memset(out, 0, static_cast<size_t>(C) * sizeof(T));
    return;
  }
  if (count == 1) {
    memcpy(out, x + sources[0] * C, static_cast<size_t>(C) * sizeof(T));
    return;
  }
  float* total = static_cast<float*>(scratch(Slot::kRows, C * 4, shortage));
  if (total == nullptr) return;
  memset(total, 0, static_cast<size_t>(C) * 4);
  for (int64_t k = 0; k < count; ++k) {
    const T* from = x + sources[k] * C;
    for_lanes(C,
              [&](int64_t i, auto lanes) { store(total + i, load(total + i, lanes) + load(from + i, lanes), lanes); });
  }
  for_lanes(C, [&](int64_t i, auto lanes) { store(out + i, load(total + i, lanes), lanes); });
}

template <class T>
Status scatter(const ScatterAddRowsParams& p) {
  Shortage shortage;
  int64_t* starts = static_cast<int64_t*>(scratch(Slot::kShared, (p.R + 1 + p.N) * 8, shortage));
  if (starts == nullptr) return shortage.status();
  int64_t* sources = starts + p.R + 1;
  group_by_destination(p.index, p.N, p.R, starts, sources);
  parallel_ranges(p.R, rows_per_range(p.C * sizeof(T)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      sum_rows(static_cast<const T*>(p.x), sources + starts[r], starts[r + 1] - starts[r], p.C,
               static_cast<T*>(p.out) + r * p.C, shortage);
  });
  return shortage.status();
}

}  // namespace

Status embedding(const EmbeddingParams& p) {
  const Status status = check_rows("embedding", "ids", p.ids, p.T, p.V);
  if (!status.ok) return status;
  const int64_t bytes = p.C * size_of(p.dtype);
  parallel_ranges(p.T, rows_per_range(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      memcpy(static_cast<char*>(p.out) + t * bytes, static_cast<const char*>(p.table) + p.ids[t] * bytes,
             static_cast<size_t>(bytes));
  });
  return {};
}

Status embedding_backward(const EmbeddingBackwardParams& p) {
  const Status status = check_rows("embedding_backward", "ids", p.ids, p.T, p.V);
  if (!status.ok) return status;
  p.dtype == DType::kBf16 ? add_to_table<bf16>(p) : add_to_table<float>(p);
  return {};
}

Status scatter_add_rows(const ScatterAddRowsParams& p) {
  const Status status = check_rows("scatter_add_rows", "index", p.index, p.N, p.R);
  if (!status.ok || p.C == 0) return status;
  return p.dtype == DType::kBf16 ? scatter<bf16>(p) : scatter<float>(p);
}

}  // namespace westwind::WESTWIND_ISA
