// gemm in blocks: op(A) is packed once per block of rows and shared; every task packs its own columns of op(B), which
// stay in its second-level cache, and goes over K while its part of C stays with it. Contract: ops/gemm.h
#include "../ops.h"
#include "gemm_kernel.h"
#include "gemm_lines.h"
#include "gemm_thin.h"
#ifdef WESTWIND_ISA_amx
#include "gemm_thin_tiles.h"
#include "gemm_tiles.h"
#endif

namespace westwind {
namespace {

// Tuned on a Zen 3 core (32 KB, 512 KB of cache): a block of A (96 × 256) and one of B (256 × 128) share the second
// level.
constexpr int64_t kBlockM = 16 * kTileM;
constexpr int64_t kBlockN = 8 * kTileN;
constexpr int64_t kMaxDepth = 8 * kBlockK;  // K packed at a time, where C can hold the sum so far
constexpr int64_t kPackedFloats = 2 << 20;  // of A, 8 MB: stays in the last-level cache
constexpr int64_t kMaxRows = 1024 / kTileM * kTileM;
constexpr int64_t kThinColumns = 4 * kTileN;  // of a task
constexpr int64_t kWorthThreads = 1 << 17;    // multiply-adds; fewer take less time than waking the threads

template <int W, class T>
void pack_as(const Lines& m, int64_t line, int64_t panels, int64_t k0, int64_t k, float* out) {
  const T* data = static_cast<const T*>(m.data);
  if (m.along_k) {
    for (int64_t i = 0; i < panels; ++i, line += W)
      pack_transposed<W>(data + line * m.ld + k0, m.ld, m.lines - line, k, out + i * W * k);
  } else {
    pack_copied<W>(data + k0 * m.ld + line, m.ld, m.lines - line, k, panels, out);
  }
}

template <int W>
void pack(const Lines& m, int64_t line, int64_t panels, int64_t k0, int64_t k, float* out) {
  if (m.is_bf16) {
    pack_as<W, bf16>(m, line, panels, k0, k, out);
  } else {
    pack_as<W, float>(m, line, panels, k0, k, out);
  }
}

// Rows [m0, m0 + rows) of C over values [k0, k0 + depth) of k, with the packed A of just that.
struct Block {
  const GemmParams& p;
  const float* a;  // per kBlockK of k, per panel of kTileM rows
  int64_t m0, rows, k0, depth;
};

void multiply_block(const float* a, const float* b, int64_t k, float* c, int64_t ldc, int64_t rows, int64_t columns,
                    float alpha, bool adds) {
  for (int64_t j = 0; j < columns; j += kTileN) {
    for (int64_t i = 0; i < rows; i += kTileM) {
      vf acc[kTileM][2];
      multiply(a + i * k, b + j * k, k, acc);
      update(c + i * ldc + j, ldc, rows - i, columns - j, alpha, adds, acc);
    }
  }
}

// One task: rows [m, m + rows) within the block, columns [n, n + columns).
void multiply_part(const Block& block, int64_t m, int64_t rows, int64_t n, int64_t columns, Shortage& shortage) {
  const GemmParams& p = block.p;
  const int64_t wide = pieces_of(columns, kTileN) * kTileN;
  const bool rounds = p.c_type == DType::kBf16;  // then the sum is kept beside C until it is complete
  const int64_t floats = wide * (kBlockK + (rounds ? rows : 0));
  float* packed = static_cast<float*>(scratch(Slot::kPackB, 4 * floats, shortage));
  if (packed == nullptr) return;
  const int64_t c_at = (block.m0 + m) * p.ldc + n;
  bf16* rounded = static_cast<bf16*>(p.c) + (rounds ? c_at : 0);
  float* c = rounds ? packed + wide * kBlockK : static_cast<float*>(p.c) + c_at;
  const int64_t ldc = rounds ? wide : p.ldc;
  const bool first = block.k0 == 0;
  if (first && p.beta != 0 && (rounds || p.beta != 1)) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        c[i * ldc + j] = p.beta * (rounds ? to_float(rounded[i * p.ldc + j]) : c[i * ldc + j]);
  }

  const Lines b{p.b, p.ldb, p.N, p.b_type == DType::kBf16, p.trans_b};
  const int64_t all_rows = pieces_of(block.rows, kTileM) * kTileM;
  for (int64_t at = 0; at < block.depth; at += kBlockK) {
    const int64_t k = least(kBlockK, block.depth - at);
    pack<kTileN>(b, n, wide / kTileN, block.k0 + at, k, packed);
    const bool adds = p.beta != 0 || !first || at > 0;
    for (int64_t i = 0; i < rows; i += kBlockM) {
      multiply_block(block.a + all_rows * at + (m + i) * k, packed, k, c + i * ldc, ldc, least(kBlockM, rows - i),
                     columns, p.alpha, adds);
    }
  }

  for (int64_t i = 0; rounds && i < rows; ++i) {
    int64_t j = 0;
    for (; j + kLanes <= columns; j += kLanes) store(rounded + i * p.ldc + j, load(c + i * ldc + j));
    for (; j < columns; ++j) store(rounded + i * p.ldc + j, c[i * ldc + j]);
  }
}

void scale_c(const GemmParams& p) {  // K == 0
  for (int64_t i = 0; i < p.M; ++i) {
    for (int64_t j = 0; j < p.N; ++j) {
      const int64_t at = i * p.ldc + j;
      if (p.c_type == DType::kBf16) {
        bf16* c = static_cast<bf16*>(p.c) + at;
        store(c, p.beta == 0 ? 0.f : p.beta * to_float(*c));
      } else {
        float* c = static_cast<float*>(p.c) + at;
        *c = p.beta == 0 ? 0.f : p.beta * *c;
      }
    }
  }
}

Status multiply_thin(const GemmParams& p, bool parallel) {
  Shortage shortage;
  float* panel = static_cast<float*>(scratch(Slot::kPackA, 4 * kTileM * p.K, shortage));
  if (panel == nullptr) return shortage.status();
  const Lines a{p.a, p.lda, p.M, p.a_type == DType::kBf16, !p.trans_a};
  for (int64_t k = 0; k < p.K; k += kBlockK) pack<kTileM>(a, 0, 1, k, least(kBlockK, p.K - k), panel + k * kTileM);
  each(parallel, pieces_of(p.N, kThinColumns), [&](int64_t task) {
    const int64_t n = task * kThinColumns, end = least(n + kThinColumns, p.N);
    p.b_type == DType::kBf16 ? thin_part<bf16>(p, panel, n, end) : thin_part<float>(p, panel, n, end);
  });
  return {};
}

Status multiply_all(const GemmParams& p, bool parallel) {
  if (is_thin(p)) return multiply_thin(p, parallel);
  const int64_t max_depth = p.c_type == DType::kBf16 ? p.K : least(p.K, kMaxDepth);
  int64_t max_rows = kPackedFloats / max_depth / kTileM * kTileM;
  max_rows = max_rows < kBlockM ? kBlockM : least(max_rows, kMaxRows);
  max_rows = least(max_rows, pieces_of(p.M, kTileM) * kTileM);
  Shortage shortage;
  float* packed = static_cast<float*>(scratch(Slot::kPackA, 4 * max_rows * max_depth, shortage));
  if (packed == nullptr) return shortage.status();
  const Lines a{p.a, p.lda, p.M, p.a_type == DType::kBf16, !p.trans_a};

  // Enough tasks for every thread: first of fewer columns, then of fewer rows. The split does not change a bit.
  const int64_t wanted = parallel ? 4 * threads() : 1;
  int64_t columns = least(kBlockN, pieces_of(p.N, kTileN) * kTileN);
  while (columns > 2 * kTileN && pieces_of(p.N, columns) * pieces_of(max_rows, kBlockM) < wanted) columns -= kTileN;
  const int64_t column_tasks = pieces_of(p.N, columns);
  const int64_t row_tasks = least(pieces_of(wanted, column_tasks), pieces_of(max_rows, kBlockM));

  for (int64_t m0 = 0; m0 < p.M; m0 += max_rows) {
    const int64_t rows = least(max_rows, p.M - m0);
    const int64_t panels = pieces_of(rows, kTileM);
    for (int64_t k0 = 0; k0 < p.K; k0 += max_depth) {
      const int64_t depth = least(max_depth, p.K - k0);
      const int64_t strips = pieces_of(rows, kBlockM);
      each(parallel, strips * pieces_of(depth, kBlockK), [&](int64_t task) {
        const int64_t at = task / strips * kBlockK, panel = task % strips * (kBlockM / kTileM);
        const int64_t k = least(kBlockK, depth - at);
        pack<kTileM>(a, m0 + panel * kTileM, least(kBlockM / kTileM, panels - panel), k0 + at, k,
                     packed + panels * kTileM * at + panel * kTileM * k);
      });
      const Block block{p, packed, m0, rows, k0, depth};
      const int64_t part = pieces_of(pieces_of(rows, row_tasks), kTileM) * kTileM;
      each(parallel, pieces_of(rows, part) * column_tasks, [&](int64_t task) {
        const int64_t m = task / column_tasks * part, n = task % column_tasks * columns;
        multiply_part(block, m, least(part, rows - m), n, least(columns, p.N - n), shortage);
      });
    }
  }
  return shortage.status();
}

}  // namespace

namespace WESTWIND_ISA {

Status gemm(const GemmParams& p) {
  if (p.M <= 0 || p.N <= 0) return {};
  if (p.K <= 0) {
    scale_c(p);
    return {};
  }
#ifdef WESTWIND_ISA_amx
  if (p.a_type == DType::kBf16 && p.b_type == DType::kBf16) return thin(p) ? multiply_thin(p) : multiply_blocks(p);
#endif
  return multiply_all(p, p.M * p.N * p.K >= kWorthThreads);
}

}  // namespace WESTWIND_ISA
}  // namespace westwind
