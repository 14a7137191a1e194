// The inside of gemm: packing into panels, and the register tile that multiplies two panels.
//
// A panel holds W lines (rows of op(A) or columns of op(B)) over k: panel[k][W], f32, lines that do not exist are 0.
// One tile of C is an A panel of kTileM lines times a B panel of kTileN lines, kept in registers over up to kBlockK
// values of k. The idea and the names of the loops: BLIS, https://doi.org/10.1145/2764454.
#pragma once
#include "vec.h"

namespace westwind {
namespace {

// kTileM × 2 accumulators, two registers of B, one of A: 15 of 16 registers in AVX2, 31 of 32 in AVX-512.
#if defined(WESTWIND_ISA_avx512)
constexpr int kTileM = 14;
#elif defined(WESTWIND_ISA_avx2)
constexpr int kTileM = 6;
#else
constexpr int kTileM = 4;
#endif
constexpr int kTileN = 2 * kLanes;

// Sums over K are made of sums over blocks of this many, in order. Part of the result's bits: do not tune per shape.
// A panel of B (kBlockK × kTileN) takes half to two thirds of the first-level cache.
constexpr int kBlockK = 256;

template <int... I>
struct Lanes {};
#if defined(WESTWIND_ISA_avx512)
using EveryLane = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(WESTWIND_ISA_avx2)
using EveryLane = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using EveryLane = Lanes<0, 1, 2, 3>;
#endif

// Lane i of the result is lane pick(i) of a, or lane pick(i) - kLanes of b.
template <int (*pick)(int), int... I>
inline vf shuffle(vf a, vf b, Lanes<I...>) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, pick(I)...);
#else
  return __builtin_shuffle(a, b, vi{pick(I)...});
#endif
}

// Within each four lanes: a0 b0 a1 b1, a2 b2 a3 b3; the same by pairs; and a swap of runs of `run` lanes.
constexpr int zip_low(int i) { return i % 2 * kLanes + i / 4 * 4 + i % 4 / 2; }
constexpr int zip_high(int i) { return zip_low(i) + 2; }
constexpr int pair_low(int i) { return i % 4 / 2 * kLanes + i / 4 * 4 + i % 2; }
constexpr int pair_high(int i) { return pair_low(i) + 2; }
template <int run>
constexpr int run_low(int i) {
  return (i & run) ? kLanes + i - run : i;
}
template <int run>
constexpr int run_high(int i) {
  return (i & run) ? kLanes + i : i + run;
}

template <int run>
inline void swap_runs(vf (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    if (i & run) continue;
    const vf a = rows[i], b = rows[i + run];
    rows[i] = shuffle<run_low<run>>(a, b, EveryLane{});
    rows[i + run] = shuffle<run_high<run>>(a, b, EveryLane{});
  }
}

// A square of kLanes × kLanes floats: first every 4 × 4 block, then the blocks among themselves.
inline void transpose(vf (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; i += 4) {
    const vf a = shuffle<zip_low>(rows[i], rows[i + 1], EveryLane{});
    const vf b = shuffle<zip_low>(rows[i + 2], rows[i + 3], EveryLane{});
    const vf c = shuffle<zip_high>(rows[i], rows[i + 1], EveryLane{});
    const vf d = shuffle<zip_high>(rows[i + 2], rows[i + 3], EveryLane{});
    rows[i] = shuffle<pair_low>(a, b, EveryLane{});
    rows[i + 1] = shuffle<pair_high>(a, b, EveryLane{});
    rows[i + 2] = shuffle<pair_low>(c, d, EveryLane{});
    rows[i + 3] = shuffle<pair_high>(c, d, EveryLane{});
  }
  if constexpr (kLanes > 4) swap_runs<4>(rows);
  if constexpr (kLanes > 8) swap_runs<8>(rows);
}

// One line of a panel, or its last lanes: where W < kLanes the store also touches the line after it, which is written
// later; the last line of a panel must not.
template <int W>
inline void store_line(float* to, vf v, bool last) {
  if (W >= kLanes || !last) {
    store(to, v);
  } else {
    store_tail(to, v, W);
  }
}

// kLanes lines that are contiguous along k, turned: a square holds them over one step of k, transposed, and
// k_of(square, j) is their value at the j-th k of the step. bf16 are turned in pairs and widened afterwards: half the
// shuffles.
template <class T>
constexpr int kStep = static_cast<int>(4 / sizeof(T)) * kLanes;

template <class T>
inline void load_square(const T* const (&line)[kLanes], int lines, int64_t at, vf (&square)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    square[i] = vf{};
    if (i < lines) memcpy(&square[i], line[i] + at, sizeof square[i]);
  }
  transpose(square);
}
inline vf k_of(const float*, const vf (&square)[kLanes], int j) { return square[j]; }
inline vf k_of(const bf16*, const vf (&square)[kLanes], int j) {  // the even k lies in the low half
  const vu pair = (vu)square[j / 2];
  return (vf)(j % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
}

// Pointers to lines [first, first + kLanes) of those at from + i·ld; zeros where there are fewer. Valid for kBlockK.
template <class T>
inline void point_at(const T* from, int64_t ld, int64_t first, int64_t lines, const T* (&line)[kLanes]) {
  static const T zeros[kBlockK] = {};
  for (int i = 0; i < kLanes; ++i) line[i] = first + i < lines ? from + (first + i) * ld : zeros;
}

// Panel from lines that are contiguous along k: line i at from + i·ld, of which `lines` exist. k <= kBlockK.
template <int W, class T>
void pack_transposed(const T* from, int64_t ld, int64_t lines, int64_t k, float* panel) {
  static_assert(W <= kLanes || W % kLanes == 0, "a panel line is part of a register or whole registers");
  constexpr int width = W < kLanes ? W : kLanes;
  for (int g = 0; g < W; g += kLanes) {
    const T* line[kLanes];
    point_at(from, ld, g, lines, line);
    int64_t at = 0;
    for (; at + kStep<T> <= k; at += kStep<T>) {
      vf square[kLanes];
      load_square(line, width, at, square);
      float* to = panel + at * W + g;
      for (int j = 0; j < kStep<T>; ++j) store_line<W>(to + j * W, k_of(from, square, j), at + j + 1 == k);
    }
    for (; at < k; ++at)
      for (int i = 0; i < width; ++i) panel[at * W + g + i] = to_float(line[i][at]);
  }
}

// `panels` panels from lines that lie side by side: the value of line i at k is from[k·ld + i]; `lines` exist. Row by
// row over all panels, so that a row is read in one piece.
template <int W, class T>
void pack_copied(const T* from, int64_t ld, int64_t lines, int64_t k, int64_t panels, float* panel) {
  for (int64_t at = 0; at < k; ++at) {
    const T* row = from + at * ld;
    float* to = panel + at * W;
    for (int64_t i = 0; i < panels; ++i, to += k * W) {
      for (int g = 0; g < W; g += kLanes) {
        const int64_t left = lines - i * W - g;
        const T* part = row + i * W + g;
        const vf v = left >= kLanes ? load(part) : left > 0 ? load_tail(part, static_cast<int>(left)) : vf{};
        store_line<W>(to + g, v, at + 1 == k);
      }
    }
  }
}

// acc = A panel · B panel over k. Every accumulator is one chain over k in order.
inline void multiply(const float* a, const float* b, int64_t k, vf (&acc)[kTileM][2]) {
#pragma GCC unroll 16
  for (int i = 0; i < kTileM; ++i) acc[i][0] = acc[i][1] = vf{};
  for (int64_t at = 0; at < k; ++at) {
    const vf b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTileM; ++i) {
      acc[i][0] += a[i] * b0;
      acc[i][1] += a[i] * b1;
    }
    a += kTileM;
    b += kTileN;
  }
}

// c (+)= alpha·acc, of which rows × columns exist; without `adds` c is not read. One product and one sum: there is one
// way to contract them, so that every tile rounds alike, whole or partial.
inline void update(float* c, int64_t ldc, int64_t rows, int64_t columns, float alpha, bool adds,
                   const vf (&acc)[kTileM][2]) {
  float partial[kTileM * kTileN];
  const bool whole = rows >= kTileM && columns >= kTileN;
  float* to = whole ? c : partial;
  const int64_t ld = whole ? ldc : kTileN;
  if (!whole && adds) {
    for (int i = 0; i < kTileM; ++i)
      for (int j = 0; j < kTileN; ++j) partial[i * kTileN + j] = i < rows && j < columns ? c[i * ldc + j] : 0;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileM; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      float* at = to + i * ld + j * kLanes;
      store(at, adds ? load(at) + alpha * acc[i][j] : alpha * acc[i][j]);
    }
  }
  if (!whole) {
    for (int i = 0; i < kTileM && i < rows; ++i)
      memcpy(c + i * ldc, partial + i * kTileN,
             sizeof(float) * static_cast<size_t>(columns < kTileN ? columns : kTileN));
  }
}

}  // namespace
}  // namespace westwind
