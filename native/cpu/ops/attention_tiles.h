// What attention on tiles shares: operands in tile order, products of them, and the exponential. bf16 only, D a
// multiple of 32.
//
// Everything is transposed: scores are made as Sᵀ = K Qᵀ, so a register holds one key's scores for 16 query rows. Then
// maxima, sums and scaling need no work across lanes, P and dS become operands again without a shuffle, and rows of K
// and V are operands as they lie.
//
// A product's left operand has its sum along the rows of a tile, the right operand in pairs of rows (tiles.h). Blocks
// of operands here: `columns` are summed over D, `rows` over keys or query rows. A tile has kTile elements.
#pragma once
#include "../tiles.h"
#include "attention_blocks.h"

namespace westwind {
namespace {

static_assert(kLanes == 16, "a register is a row of a tile");
constexpr int kElements = 16 * 32;  // bf16 of a tile
constexpr int kSums = 16 * 16;      // f32 of a tile
constexpr int64_t kWidest = 256;    // D

inline bool fits_tiles(int64_t D, float scale) { return D % 32 == 0 && D <= kWidest && scale > 0; }

// Products.

struct Operand {
  const bf16* at;
  int64_t tile, step;  // elements from a tile to the next outside the sum, and along it
};
struct Sums {
  float* at;
  int64_t down, across;  // elements from a tile to the next by the left and by the right operand
  int64_t row;           // bytes
};

template <int i>
struct Index {
  static constexpr int value = i;
};
template <int n, class Body>
inline void unroll(const Body& body) {
  if constexpr (n > 0) {
    unroll<n - 1>(body);
    body(Index<n - 1>{});
  }
}

// c[M, N] (+)= a[M, steps] · b[steps, N], counted in tiles; M·N <= 4. One tile product after another along the sum.
template <int M, int N>
inline void multiply(Tiles& tiles, int64_t steps, Operand a, Operand b, Sums c, bool accumulate) {
  unroll<M * N>([&](auto t) {
    constexpr int m = t.value / N, n = t.value % N;
    if (accumulate)
      tiles.load<t.value>(c.at + m * c.down + n * c.across, c.row);
    else
      tiles.zero<t.value>();
  });
  for (int64_t step = 0; step < steps; ++step) {
    unroll<N>([&](auto n) { tiles.load<7 - n.value>(b.at + n.value * b.tile + step * b.step, kTileBytes); });
    unroll<M>([&](auto m) {
      constexpr int left = 4 + m.value % (4 - N);
      tiles.load<left>(a.at + m.value * a.tile + step * a.step, kTileBytes);
      unroll<N>([&](auto n) { tiles.dpbf16<m.value * N + n.value, left, 7 - n.value>(); });
    });
  }
  unroll<M * N>([&](auto t) {
    constexpr int m = t.value / N, n = t.value % N;
    tiles.store<t.value>(c.at + m * c.down + n * c.across, c.row);
  });
}

// Sums transposed, [D][16 rows], += [D / 16, steps] left tiles times a column of right ones; a tile's next along the
// sum follows it.
inline void add_column(Tiles& tiles, int64_t D, int64_t steps, const bf16* left, const uint32_t* right, float* sums) {
  constexpr int64_t kRow = kKeys * 16;  // of left tiles
  const Operand b{reinterpret_cast<const bf16*>(right), 0, kElements};
  int64_t d = 0;
  for (; d + 64 <= D; d += 64)
    multiply<4, 1>(tiles, steps, {left + d * kKeys, kRow, kElements}, b, {sums + d * 16, kSums, 0, kTileBytes}, true);
  if (d < D)
    multiply<2, 1>(tiles, steps, {left + d * kKeys, kRow, kElements}, b, {sums + d * 16, kSums, 0, kTileBytes}, true);
}

// Registers.

template <int... i>
inline vu shuffle(vu a, vu b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, i...);
#else
  return __builtin_shuffle(a, b, vu{i...});
#endif
}

// 16 x 16 words, in place: in squares of 2, of 4, then whole.
inline void transpose(vu* row) {
  vu t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = shuffle<0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(row[i], row[i + 1]);
    t[i + 1] = shuffle<2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(row[i], row[i + 1]);
  }
  vu u[16];  // u[4j + k]: column k of each square of 4, of rows 4j to 4j + 3
  for (int i = 0; i < 16; i += 4)
    for (int half = 0; half < 2; ++half) {
      const vu a = t[i + half], b = t[i + 2 + half];
      u[i + 2 * half] = shuffle<0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29>(a, b);
      u[i + 2 * half + 1] = shuffle<2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31>(a, b);
    }
  for (int k = 0; k < 4; ++k) {
    const vu a = shuffle<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(u[k], u[4 + k]);
    const vu b = shuffle<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(u[k], u[4 + k]);
    const vu c = shuffle<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(u[8 + k], u[12 + k]);
    const vu d = shuffle<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(u[8 + k], u[12 + k]);
    row[k] = shuffle<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(a, c);
    row[8 + k] = shuffle<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(a, c);
    row[4 + k] = shuffle<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(b, d);
    row[12 + k] = shuffle<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(b, d);
  }
}

inline vi load_indices(const int32_t* p) {
  vi v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline bool any(vi mask) {
  typedef int8_t v16b __attribute__((vector_size(16)));
  const v16b bytes = __builtin_convertvector(mask, v16b);
  uint64_t words[2];
  memcpy(words, &bytes, sizeof words);
  return (words[0] | words[1]) != 0;
}

// 2^x for x up to a little above 8, within 3e-6 of its value; exactly 0 from −127 down, exactly 1 at 0; NaN stays NaN.
// The polynomial of degree 4 with the least relative error over [−½, ½].
inline vf exp2_of(vf x) {
  vf low = splat(-127.f);
#ifdef __AVX512F__
  asm("" : "+v"(low));  // no constant to the compiler, which would turn the comparison round: then it is no maximum
#endif
  x = low > x ? low : x;
  const vf shifted = x + (12582912.f + 127.f);  // 1.5·2^23: rounds to nearest in the low bits; 127: the exponent's bias
  const vf r = x - (shifted - (12582912.f + 127.f));
  vf p = splat(9.582852945e-3f);
  p = p * r + 5.590642616e-2f;
  p = p * r + 2.402409911e-1f;
  p = p * r + 6.931241751e-1f;
  p = p * r + 1.f;
  return p * (vf)((vi)shifted << 23);  // at −127 the exponent field is 0: times +0
}

// bf16 of two registers, in pairs: a in the low half of each word, b in the high one. Rounds to nearest, halves away
// from 0: one addition; NaN stays NaN as long as its low half is not all ones, and none made here is.
inline vu pairs_of(vf a, vf b) { return (((vu)a + 0x8000u) >> 16) | (((vu)b + 0x8000u) & 0xffff0000u); }

inline void store_words(uint32_t* p, vu v) { memcpy(p, &v, sizeof v); }

// 32 elements of a row as 16 words.
inline vu load_words(const bf16* p) {
  vu v;
  memcpy(&v, p, sizeof v);
  return v;
}

// 16 elements of two rows, in pairs.
inline vu interleave(const bf16* a, const bf16* b) {
  vh low, high;
  memcpy(&low, a, sizeof low);
  memcpy(&high, b, sizeof high);
  return __builtin_convertvector(low, vu) | (__builtin_convertvector(high, vu) << 16);
}

// Packing: n rows of D elements, row i at row_at(i); the rows up to a whole tile, or block, are 0.

constexpr bf16 kZeros[kWidest] = {};

// Left, summed over D: [kKeys / 16][D / 32] tiles of 16 rows.
template <class RowAt>
inline void pack_left_columns(int64_t n, int64_t D, const RowAt& row_at, bf16* to) {
  for (int64_t i = 0; i < kKeys; ++i) {
    const bf16* row = i < n ? row_at(i) : kZeros;
    bf16* at = to + i / 16 * 16 * D + i % 16 * 32;
    for (int64_t d = 0; d < D; d += 32) memcpy(at + d * 16, row + d, kTileBytes);
  }
}

// Left, summed over the rows: [D / 16][kKeys / 32] tiles of 16 columns.
template <class RowAt>
inline void pack_left_rows(int64_t n, int64_t D, const RowAt& row_at, bf16* to) {
  for (int64_t half = 0; half < kKeys / 32; ++half) {
    const bf16* rows[32];
    for (int64_t i = 0; i < 32; ++i) rows[i] = 32 * half + i < n ? row_at(32 * half + i) : kZeros;
    for (int64_t d = 0; d < D; d += 16) {
      vu word[16];
      for (int i = 0; i < 16; ++i) word[i] = interleave(rows[2 * i] + d, rows[2 * i + 1] + d);
      transpose(word);
      memcpy(to + (d / 16 * (kKeys / 32) + half) * kElements, word, sizeof word);
    }
  }
}

// Right, summed over D: [D / 32] tiles of 16 rows.
template <class RowAt>
inline void pack_right_columns(int64_t n, int64_t D, const RowAt& row_at, bf16* to) {
  for (int64_t d = 0; d < D; d += 32) {
    vu word[16];
    for (int64_t i = 0; i < 16; ++i) word[i] = load_words((i < n ? row_at(i) : kZeros) + d);
    transpose(word);
    memcpy(to + d * 16, word, sizeof word);
  }
}

// Right, summed over 32 rows: [D / 16] tiles of 16 columns. Pairs are rows i and i + 16.
template <class RowAt>
inline void pack_right_rows(int64_t n, int64_t D, const RowAt& row_at, bf16* to) {
  for (int64_t i = 0; i < 16; ++i) {
    const bf16* a = i < n ? row_at(i) : kZeros;
    const bf16* b = i + 16 < n ? row_at(i + 16) : kZeros;
    for (int64_t d = 0; d < D; d += 16) {
      const vu words = interleave(a + d, b + d);
      memcpy(to + d * 32 + i * 32, &words, sizeof words);
    }
  }
}

// Sums transposed, [D][16 rows], times a factor by row, to n rows of bf16.
template <class RowAt>
inline void unpack_sums(int64_t n, int64_t D, const float* sums, vf factor, const RowAt& row_at) {
  for (int64_t d = 0; d < D; d += 16) {
    vu word[16];
    for (int i = 0; i < 16; ++i) word[i] = (vu)(load(sums + (d + i) * 16) * factor);
    transpose(word);
    for (int i = 0; i < n; ++i) store(row_at(i) + d, (vf)word[i]);
  }
}

}  // namespace
}  // namespace westwind
