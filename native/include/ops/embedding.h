// embedding, and the row moves that share its loops.
//
//   embedding:          out[t] = table[ids[t]]                    (gathers rows of any matrix)
//   embedding_backward: dtable[v] += Σ_{t: ids[t] = v} dout[t]    in ascending t, f32
//   scatter_add_rows:   out[r] = Σ_{n: index[n] = r} x[n]          in ascending n, f32 sum, every row of out is written
#pragma once
#include "../dtype.h"

namespace westwind {

struct EmbeddingParams {
  const void* table;   // [V, C]
  const int32_t* ids;  // [T], 0 <= id < V, else the op fails and names the place
  void* out;           // [T, C]
  int64_t T, V, C;
  DType dtype;
};

struct EmbeddingBackwardParams {
  const void* dout;    // [T, C] dtype
  const int32_t* ids;  // [T]
  float* dtable;       // [V, C]
  int64_t T, V, C;
  DType dtype;
};

struct ScatterAddRowsParams {
  const void* x;         // [N, C]
  const int32_t* index;  // [N], 0 <= index < R
  void* out;             // [R, C]
  int64_t N, R, C;
  DType dtype;
};

}  // namespace westwind
