// What the attention kernels share: blocks of keys and values packed as f32, and the small matrix products
// over them.
//
// Keys have a *logical* order: those of the prefix segment, then the segment's own, or the entries of a cache
// slot. A key block is kKeys consecutive logical keys from a multiple of kKeys on, wherever the rows lie. So
// a token's result has the same bits in any layout of the row, with the prefix shared or repeated, and when
// decoding from a cache.
#pragma once
#include "../vec.h"

namespace westwind {
namespace {

constexpr int kKeys = 64;          // keys per block: K and V of one block at D = 64 are 16 KiB each
constexpr int kRows = 192;         // query rows per block, tokens times heads of the group: packing K and V pays off
constexpr int kTile = 6;           // rows of a register tile: 6 x 2 sums, 2 loads and a broadcast fill 16 registers
constexpr int kWide = 2 * kLanes;  // columns of a register tile, and of a packed panel

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows [first, first + split), then rows [second, second + count − split).
struct KeyRange {
  int64_t first, split, second, count;
  int64_t row(int64_t key) const { return key < split ? first + key : second + (key - split); }
};

// c[R, kWide] (+)= a[R, K] · b[K, kWide]; one fused multiply-add after another over K, so no element depends
// on R. kColumns: element (r, k) of `a` is a[k·lda + r], else a[r·lda + k].
template <int R, bool kColumns>
inline void tile(int64_t K, const float* a, int64_t lda, const float* b, float* c, int64_t ldc, bool accumulate) {
  vf sum[R][2];
  for (int r = 0; r < R; ++r) {
    sum[r][0] = accumulate ? load(c + r * ldc) : vf{};
    sum[r][1] = accumulate ? load(c + r * ldc + kLanes) : vf{};
  }
  for (int64_t k = 0; k < K; ++k, b += kWide) {
    const vf b0 = load(b), b1 = load(b + kLanes);
    for (int r = 0; r < R; ++r) {
      const vf x = splat(kColumns ? a[k * lda + r] : a[r * lda + k]);
      sum[r][0] += x * b0;
      sum[r][1] += x * b1;
    }
  }
  for (int r = 0; r < R; ++r) {
    store(c + r * ldc, sum[r][0]);
    store(c + r * ldc + kLanes, sum[r][1]);
  }
}

template <bool kColumns>
inline void tile(int R, int64_t K, const float* a, int64_t lda, const float* b, float* c, int64_t ldc,
                 bool accumulate) {
  switch (R) {
    case 1:
      return tile<1, kColumns>(K, a, lda, b, c, ldc, accumulate);
    case 2:
      return tile<2, kColumns>(K, a, lda, b, c, ldc, accumulate);
    case 3:
      return tile<3, kColumns>(K, a, lda, b, c, ldc, accumulate);
    case 4:
      return tile<4, kColumns>(K, a, lda, b, c, ldc, accumulate);
    case 5:
      return tile<5, kColumns>(K, a, lda, b, c, ldc, accumulate);
    default:
      return tile<6, kColumns>(K, a, lda, b, c, ldc, accumulate);
  }
}

// n rows of D elements, row i at row_at(i), into panels [ceil(D / kWide)][capacity][kWide] of f32 times
// `scale`. Columns past D are 0.
template <class T, class RowAt>
inline void pack_rows(int64_t n, int64_t D, int64_t capacity, float scale, const RowAt& row_at, float* panels) {
  for (int64_t i = 0; i < n; ++i) {
    const T* row = row_at(i);
    float* to = panels + i * kWide;
    int64_t d = 0;
    for (; d + kWide <= D; d += kWide, to += capacity * kWide) {
      store(to, load(row + d) * scale);
      store(to + kLanes, load(row + d + kLanes) * scale);
    }
    if (d < D)
      for (int j = 0; j < kWide; ++j) to[j] = d + j < D ? to_float(row[d + j]) * scale : 0;
  }
}

typedef float v4 __attribute__((vector_size(16)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef uint16_t h4 __attribute__((vector_size(8)));

inline v4 load4(const float* p) {
  v4 v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline v4 load4(const bf16* p) {
  h4 h;
  memcpy(&h, p, sizeof h);
  return (v4)(__builtin_convertvector(h, u4) << 16);
}

#if defined(__clang__)
#define WESTWIND_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define WESTWIND_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, u4{i, j, k, l})
#endif

// The same rows transposed: panels [kKeys / kWide][D][kWide], lanes over rows; rows from n to kKeys are 0. In
// squares of four rows and four columns: the rows lie apart in memory, so several have to be on their way at
// a time.
template <class T, class RowAt>
inline void pack_transposed(int64_t n, int64_t D, const RowAt& row_at, float* panels) {
  for (int64_t i = 0; i < kKeys; i += 4) {
    float* to = panels + i / kWide * D * kWide + i % kWide;
    int64_t d = 0;
    if (i + 4 <= n) {
      const T *r0 = row_at(i), *r1 = row_at(i + 1), *r2 = row_at(i + 2), *r3 = row_at(i + 3);
      for (; d + 4 <= D; d += 4) {
        const v4 a = load4(r0 + d), b = load4(r1 + d), c = load4(r2 + d), e = load4(r3 + d);
        const v4 ab01 = WESTWIND_SHUFFLE4(a, b, 0, 4, 1, 5), ab23 = WESTWIND_SHUFFLE4(a, b, 2, 6, 3, 7);
        const v4 ce01 = WESTWIND_SHUFFLE4(c, e, 0, 4, 1, 5), ce23 = WESTWIND_SHUFFLE4(c, e, 2, 6, 3, 7);
        const v4 columns[4] = {WESTWIND_SHUFFLE4(ab01, ce01, 0, 1, 4, 5), WESTWIND_SHUFFLE4(ab01, ce01, 2, 3, 6, 7),
                               WESTWIND_SHUFFLE4(ab23, ce23, 0, 1, 4, 5), WESTWIND_SHUFFLE4(ab23, ce23, 2, 3, 6, 7)};
        for (int j = 0; j < 4; ++j) memcpy(to + (d + j) * kWide, &columns[j], sizeof columns[j]);
      }
    }
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t rest = d; rest < D; ++rest) to[rest * kWide + j] = i + j < n ? to_float(row_at(i + j)[rest]) : 0;
  }
}
#undef WESTWIND_SHUFFLE4

// Asks for K and V of the key block from `key` on while the block before it is worked on: their rows lie
// apart in memory.
template <class T>
inline void fetch_ahead(const T* k, const T* v, int64_t stride, int64_t D, const KeyRange& keys, int64_t key,
                        int64_t end) {
  for (int64_t i = key; i < least(key + kKeys, end); ++i) {
    const int64_t row = keys.row(i) * stride;
    for (int64_t d = 0; d < D; d += 64 / static_cast<int64_t>(sizeof(T))) {
      __builtin_prefetch(k + row + d);
      __builtin_prefetch(v + row + d);
    }
  }
}

// c[M, kKeys] = a[M, D] · transposed panels. Columns that no row of a tile sees are left alone: visible(r)
// keys of the block are visible to rows up to r, ascending in r.
template <class Visible>
inline void scores(int M, int64_t D, const float* a, const float* panels, float* c, const Visible& visible) {
  for (int key = 0; key < kKeys; key += kWide)
    for (int r = 0; r < M; r += kTile) {
      const int R = static_cast<int>(least(kTile, M - r));
      if (visible(r + R - 1) <= key) continue;
      tile<false>(R, D, a + r * D, D, panels + key * D, c + r * kKeys + key, kKeys, false);
    }
}

// c[M, Dp] += p[M, kKeys] · row panels.
template <class Visible>
inline void add_weighted(int M, int64_t Dp, const float* p, const float* panels, float* c, const Visible& visible) {
  for (int64_t d = 0; d < Dp; d += kWide)
    for (int r = 0; r < M; r += kTile) {
      const int R = static_cast<int>(least(kTile, M - r));
      tile<false>(R, visible(r + R - 1), p + r * kKeys, kKeys, panels + d * kKeys, c + r * Dp + d, Dp, true);
    }
}

// e^x for x <= 0 or little above; exactly 0 from −88 down, exactly 1 at 0; NaN stays NaN. As exp of vec.h
// without its ends.
inline vf exp_of_negative(vf x) {
  const vf low = splat(-88.f);
  x = x < low ? low : x;
  const vf shifted = x * 1.44269504088896341f + 12582912.f;  // 1.5·2^23: rounds to nearest in the low bits
  const vf n = shifted - 12582912.f;
  const vf r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  return p * (vf)(((vi)shifted - (0x4b400000 - 127)) << 23);  // at −88 the exponent field is 0: times +0
}

// Which of the kLanes keys from `key` on a row sees: the first `visible` of the block, if key_position is
// given those at or after `oldest` only.
inline vi mask_of(int key, int visible, const int32_t* key_position, int32_t oldest) {
  vi index;
  for (int i = 0; i < kLanes; ++i) index[i] = key + i;
  vi mask = index < vi{} + visible;
  if (key_position != nullptr) {
    vi position;
    memcpy(&position, key_position + key, sizeof position);
    mask &= position >= vi{} + oldest;
  }
  return mask;
}

// The least and the greatest position of a block's queries.
struct Span {
  int32_t low = INT32_MAX, high = 0;
};

inline Span span_of(const int32_t* positions, int64_t n) {
  Span span;
  for (int64_t i = 0; i < n; ++i) {
    span.low = static_cast<int32_t>(least(span.low, positions[i]));
    if (positions[i] > span.high) span.high = positions[i];
  }
  return span;
}

// What a window hides of a block of keys, and their positions. Without a window, nothing.
struct BlockWindow {
  int32_t position[kKeys];
  bool hides_all = false, hides_some = false;
  const int32_t* positions() const { return hides_some ? position : nullptr; }
};

// rows of keys [key, key + n); positions null: a key's position is its logical index.
inline void window_of(const KeyRange& keys, int64_t key, int n, const int32_t* positions, int32_t window, Span queries,
                      BlockWindow* out) {
  if (window <= 0) return;
  int32_t newest = -1, oldest = INT32_MAX;
  for (int i = 0; i < kKeys; ++i) {
    const int32_t at = i >= n ? 0 : positions == nullptr ? static_cast<int32_t>(key + i) : positions[keys.row(key + i)];
    out->position[i] = at;
    if (i < n && at > newest) newest = at;
    if (i < n && at < oldest) oldest = at;
  }
  out->hides_all = static_cast<int64_t>(queries.low) - newest >= window;
  out->hides_some = static_cast<int64_t>(queries.high) - oldest >= window;
}

}  // namespace
}  // namespace westwind
