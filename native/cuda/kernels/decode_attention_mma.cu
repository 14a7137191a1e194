// decode_attention in bf16 on tensor cores, D a multiple of 8 up to 256. Limited by reading the visible cache, once for
// all query heads of a KV head: 4 · D bytes per key, and every load is 16 bytes a thread, straight into the registers
// that mma.sync takes. No shared memory on the way in, for the products allow any order of their inner index:
//
//   scores [keys, columns] = K · Qᵀ    a lane's 8 elements of d are the inner index of two products; Q alike
//   outᵀ [D, columns] = Vᵀ · weights   a lane's 8 elements of d are 8 rows of the result; byte permutes pair two keys
//
// A column is one query head of one row: 8 or 16 of them, the heads of the group times rows that follow each other in
// one slot. Four warps take 64 keys each of a chunk of 256; each keeps its own maximum, so nothing is ever rescaled
// before the four are merged. No column sees another, so a row has the same bits in any company.
// Split over keys: FlashDecoding, arXiv:2307.08691. Contract: ops/decode.h
#include "common/decode_rows.cuh"
#include "common/mma.cuh"
#include "common/vec.cuh"

using namespace westwind;

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kWarpKeys = kKeyChunk / kWarps;
constexpr int kKeyTiles = kWarpKeys / 16;

__device__ __forceinline__ uint4 load16(const bf16* p, bool valid) {
  return valid ? *reinterpret_cast<const uint4*>(p) : make_uint4(0, 0, 0, 0);
}

// The transposed 8 x 8 matrix of bf16: lane (g, t) gives (g, 2t..) and gets (2t.., g).
__device__ __forceinline__ uint32_t transposed(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// Over the lanes that hold one column.
__device__ __forceinline__ float max_of_keys(float x) {
#pragma unroll
  for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
__device__ __forceinline__ float sum_of_keys(float x) {
#pragma unroll
  for (int lanes = 4; lanes < 32; lanes *= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// Which (row, head) a column is.
struct Columns {
  int64_t begin;        // first row of the run
  int32_t rows, heads;  // rows of the run; heads per row
  int32_t first_head;   // query head of column 0
  __device__ bool valid(int c) const { return c / heads < rows; }
  __device__ int64_t row(int c) const { return begin + c / heads; }
  __device__ int32_t head(int c) const { return first_head + c % heads; }
};

template <int kColumns, int kD>
struct Exchange {
  // Column c of warp w: piece (u, half, g) holds d = 64u + 8g + 4·half .. + 3. The pad spreads the lanes of a store
  // over all banks.
  float sums[kWarps][kColumns][kD + 4];
  float max[kWarps][kColumns];
  float sum[kWarps][kColumns];
};

// Adds up what the four warps have of a chunk, in their order, and writes it.
template <int kColumns, int kD>
__device__ __forceinline__ void write_chunk(const DecodeLaunch& w, const Columns& columns, int32_t chunk,
                                            const Exchange<kColumns, kD>& x) {
  constexpr int kPieces = kD / 4;
  for (int i = threadIdx.x; i < kColumns * kPieces; i += kThreads) {
    const int c = i / kPieces, piece = i % kPieces;
    const int d = piece / 16 * 64 + piece % 8 * 8 + piece / 8 % 2 * 4;
    if (!columns.valid(c) || d >= w.p.D) continue;
    float max = x.max[0][c];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) max = fmaxf(max, x.max[warp][c]);
    float sum = 0, out[4] = {};
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const float factor = weight_of(x.max[warp][c], max);
      const float4 part = *reinterpret_cast<const float4*>(&x.sums[warp][c][piece * 4]);
      sum += factor * x.sum[warp][c];
      out[0] += factor * part.x, out[1] += factor * part.y, out[2] += factor * part.z, out[3] += factor * part.w;
    }
    const int64_t t = columns.row(c);
    const int32_t head = columns.head(c);
    if (w.sums == nullptr) {
      bf16* to = static_cast<bf16*>(w.p.out) + (t * w.p.Hq + head) * w.p.D + d;
      *reinterpret_cast<uint2*>(to) =
          make_uint2(pack_bf16(out[0] / sum, out[1] / sum), pack_bf16(out[2] / sum, out[3] / sum));
    } else {
      const int64_t at = partial_index(w, t, chunk, head);
      *reinterpret_cast<float4*>(w.sums + at * w.p.D + d) = make_float4(out[0], out[1], out[2], out[3]);
      if (d == 0) w.stats[at] = {max, sum};
    }
  }
}

// Rows that follow each other in one slot.
template <int kD, int kTiles>
__device__ __forceinline__ void attend(const DecodeLaunch& w, const Columns& columns, int32_t kv_head,
                                       Exchange<8 * kTiles, kD>& x) {
  constexpr int kSteps = kD / 32;   // 16-byte loads of a key's row that a lane makes
  constexpr int kGroups = kD / 64;  // 16-byte loads of a value's row
  const DecodeAttentionParams& p = w.p;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;

  int32_t newest[kTiles][2];  // −1: no such column
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int c = 8 * n + 2 * q + i;
      newest[n][i] = columns.valid(c) ? p.position[columns.row(c)] : -1;
    }
  int32_t last = 0, first = INT32_MAX;  // that any row of the run sees
  for (int r = 0; r < columns.rows; ++r) {
    const int32_t position = p.position[columns.begin + r];
    last = max(last, position);
    first = min(first, oldest_key(p, position));
  }
  const int64_t stride = int64_t{p.Hkv} * p.D;
  const int64_t cache = (p.slot[columns.begin] * p.length * p.Hkv + kv_head) * p.D;
  const bf16* const keys = static_cast<const bf16*>(p.k_cache) + cache;
  const bf16* const values = static_cast<const bf16*>(p.v_cache) + cache;
  const float scale = p.scale * kLog2E;

  for (int32_t chunk = first / kKeyChunk + static_cast<int32_t>(blockIdx.z); chunk <= last / kKeyChunk;
       chunk += static_cast<int32_t>(gridDim.z)) {
    const int32_t key0 = chunk * kKeyChunk + warp * kWarpKeys;
    uint4 query[kTiles][kSteps];  // again for each chunk, from L1: the values need these registers
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int c = 8 * n + g;
      const bool valid = columns.valid(c);
      const bf16* row =
          static_cast<const bf16*>(p.qkv) + (columns.row(c) * (int64_t{p.Hq} + 2 * p.Hkv) + columns.head(c)) * p.D;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) query[n][s] = load16(row + 32 * s + 8 * q, valid && 32 * s + 8 * q < p.D);
    }
    float score[kKeyTiles][kTiles][4] = {};
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
      const int32_t key = key0 + 16 * tile + g;
      const bool low = key >= first && key <= last, high = key + 8 >= first && key + 8 <= last;
      const bf16* row = keys + key * stride + 8 * q;
      uint4 a[kSteps], b[kSteps];
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const bool inside = 32 * s + 8 * q < p.D;
        a[s] = load16(row + 32 * s, low && inside);
        b[s] = load16(row + 8 * stride + 32 * s, high && inside);
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          mma_bf16(score[tile][n], {a[s].x, b[s].x, a[s].y, b[s].y}, query[n][s].x, query[n][s].y);
          mma_bf16(score[tile][n], {a[s].z, b[s].z, a[s].w, b[s].w}, query[n][s].z, query[n][s].w);
        }
    }

    // Element i of a score: key g (i < 2) or g + 8, column 2q + i % 2.
    float maximum[kTiles][2], sum[kTiles][2];
    uint32_t weights[kKeyTiles][kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) maximum[n][i] = -INFINITY, sum[n][i] = 0;
      const int32_t oldest[2] = {oldest_key(p, newest[n][0]), oldest_key(p, newest[n][1])};
#pragma unroll
      for (int tile = 0; tile < kKeyTiles; ++tile)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t key = key0 + 16 * tile + g + i / 2 * 8;
          float& s = score[tile][n][i];
          s = key >= oldest[i % 2] && key <= newest[n][i % 2] ? s * scale : -INFINITY;
          maximum[n][i % 2] = fmaxf(maximum[n][i % 2], s);
        }
#pragma unroll
      for (int i = 0; i < 2; ++i) maximum[n][i] = max_of_keys(maximum[n][i]);
#pragma unroll
      for (int tile = 0; tile < kKeyTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& s = score[tile][n][i];
          s = weight_of(s, maximum[n][i % 2]);
          sum[n][i % 2] += s;
        }
        weights[tile][n][0] = transposed(pack_bf16(score[tile][n][0], score[tile][n][1]));
        weights[tile][n][1] = transposed(pack_bf16(score[tile][n][2], score[tile][n][3]));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) sum[n][i] = sum_of_keys(sum[n][i]);
    }

    // out[u][i][n]: rows d = 64u + 8g + 2i (first two) and one more, columns 2q, 2q + 1.
    float out[kGroups][4][kTiles][4] = {};
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
      const int32_t key = key0 + 16 * tile + 2 * q;
      const bf16* row = values + key * stride + 8 * g;
#pragma unroll
      for (int u = 0; u < kGroups; ++u) {
        const bool inside = 64 * u + 8 * g < p.D;
        uint4 v[4];  // of keys 2q, 2q + 1, 2q + 8, 2q + 9
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int32_t off = i % 2 + i / 2 * 8;
          v[i] = load16(row + off * stride + 64 * u, inside && key + off >= first && key + off <= last);
        }
        const uint32_t word[4][4] = {{v[0].x, v[0].y, v[0].z, v[0].w},
                                     {v[1].x, v[1].y, v[1].z, v[1].w},
                                     {v[2].x, v[2].y, v[2].z, v[2].w},
                                     {v[3].x, v[3].y, v[3].z, v[3].w}};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t a[4] = {
              __byte_perm(word[0][i], word[1][i], 0x5410), __byte_perm(word[0][i], word[1][i], 0x7632),
              __byte_perm(word[2][i], word[3][i], 0x5410), __byte_perm(word[2][i], word[3][i], 0x7632)};
#pragma unroll
          for (int n = 0; n < kTiles; ++n) mma_bf16(out[u][i][n], a, weights[tile][n][0], weights[tile][n][1]);
        }
      }
    }

    __syncthreads();  // the chunk before has been read
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int c = 8 * n + 2 * q + i;
#pragma unroll
        for (int u = 0; u < kGroups; ++u)
#pragma unroll
          for (int half = 0; half < 2; ++half)
            *reinterpret_cast<float4*>(&x.sums[warp][c][64 * u + 32 * half + 4 * g]) =
                make_float4(out[u][2 * half][n][i], out[u][2 * half][n][2 + i], out[u][2 * half + 1][n][i],
                            out[u][2 * half + 1][n][2 + i]);
        if (g == 0) x.max[warp][c] = maximum[n][i], x.sum[warp][c] = sum[n][i];
      }
    __syncthreads();
    write_chunk(w, columns, chunk, x);
  }
}

template <int kD, int kTiles>
__device__ __forceinline__ void decode(const DecodeLaunch& w) {
  constexpr int kColumns = 8 * kTiles;
  __shared__ Exchange<kColumns, kD> x;
  const DecodeAttentionParams& p = w.p;
  const int32_t group = p.Hq / p.Hkv, kv_head = static_cast<int32_t>(blockIdx.y) / w.head_blocks;
  const int32_t from = static_cast<int32_t>(blockIdx.y) % w.head_blocks * kColumns;  // head in the group
  const int64_t t0 = w.first_row + int64_t{blockIdx.x} * w.rows_per_block;
  const int64_t t1 = min(t0 + w.rows_per_block, w.first_row + w.rows);
  for (int64_t t = t0; t < t1; ++t)
    if (!row_is_in_cache(w, t)) return;
  for (int64_t begin = t0, end; begin < t1; begin = end) {
    end = begin + 1;
    while (end < t1 && p.slot[end] == p.slot[begin]) ++end;
    attend<kD, kTiles>(
        w, {begin, static_cast<int32_t>(end - begin), min(group - from, kColumns), kv_head * group + from}, kv_head, x);
  }
}

}  // namespace

// The last: threads, and where ptxas would otherwise aim at so few registers that it spills, blocks per multiprocessor.
// d256 too runs kThreads; told so, ptxas 13.0 takes all 255 registers on sm_86 and sm_89 and spills, told twice as many
// it needs 200.
#define KERNEL(name, d, tiles, ...)                                          \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__)                  \
      decode_attention_bf16_##name(const __grid_constant__ DecodeLaunch w) { \
    decode<d, tiles>(w);                                                     \
  }
KERNEL(d64_n8, 64, 1, kThreads, 3)
KERNEL(d64_n16, 64, 2, kThreads)
KERNEL(d128_n8, 128, 1, kThreads)
KERNEL(d128_n16, 128, 2, kThreads)
KERNEL(d256_n8, 256, 1, 2 * kThreads)
