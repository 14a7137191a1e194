// gemm: C = alpha · op(A) · op(B) + beta · C, accumulated in f32.
//
//   op(A) is [M, K]: A stored [M, K], or [K, M] when trans_a.   op(B) is [K, N]: B stored [K, N], or [N, K] when
//   trans_b. Row-major with row strides lda, ldb, ldc (elements). beta == 0 never reads C. K == 0 gives beta · C. An
//   element of C depends on its row of op(A) and column of op(B) alone, in an order of K that M and N do not change:
//   the kernel may depend on the device, the dtypes, K, and on whether bases and row strides lie on 16-byte boundaries.
#pragma once
#include "../dtype.h"

namespace westwind {

struct GemmParams {
  const void* a;  // f32 or bf16
  const void* b;  // f32 or bf16
  void* c;        // f32 or bf16
  int64_t lda, ldb, ldc;
  int64_t M, N, K;
  float alpha, beta;
  DType a_type, b_type, c_type;
  bool trans_a, trans_b;
};

}  // namespace westwind
