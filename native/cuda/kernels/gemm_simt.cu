// gemm on the ordinary cores: any dtype, stride and alignment, f32 multiply-adds in ascending k. What the tensor cores
// do not take comes here: f32, and bf16 whose rows are not on 16-byte boundaries.
//
// A tile of both operands is widened to f32 in shared memory, k by k, while the next one travels in registers; each
// thread keeps RowsPerThread × ColumnsPerThread sums. Limited by the multiply-adds: 8 × 8 reads 16 numbers of shared
// memory for 64 of them. Contract: ops/gemm.h
#include "common/gemm_update.cuh"

using namespace westwind;

namespace {

constexpr int kBlockK = 16;
constexpr int kPad = 4;  // floats between rows of a tile: rows stay on 16 bytes, and columns fall on different banks

// One operand: tiles of BlockMN lines × kBlockK, by Threads threads. A thread's elements are equally far apart, across
// the contiguous direction.
template <int BlockMN, int Threads>
struct Operand {
  static constexpr int kCount = BlockMN * kBlockK / Threads;
  static constexpr int kRow = BlockMN + kPad;

  const char* from;         // the first element in the next tile
  int64_t step, tile_step;  // bytes
  int to, to_step;          // in a tile of shared memory
  int across, across_step;  // where along the direction of `step` the elements are
  int along, lines;         // where in the other; lines of the tensor from this tile's first, at most BlockMN
  bool along_k, is_bf16;
  float held[kCount];

  __device__ __forceinline__ Operand(const void* base, DType type, int64_t ld, bool k_contiguous, int64_t first,
                                     int64_t all_lines, int64_t k)
      : along_k(k_contiguous), is_bf16(type == DType::kBf16) {
    const int size = is_bf16 ? 2 : 4, width = along_k ? kBlockK : BlockMN;
    along = static_cast<int>(threadIdx.x) % width;
    across = static_cast<int>(threadIdx.x) / width;
    across_step = Threads / width;
    const int64_t row = (along_k ? first : k) + across, column = (along_k ? k : first) + along;
    from = static_cast<const char*>(base) + (row * ld + column) * size;
    step = across_step * ld * size;
    tile_step = (along_k ? 1 : ld) * kBlockK * size;
    to = along_k ? along * kRow + across : across * kRow + along;
    to_step = along_k ? across_step : across_step * kRow;
    lines = static_cast<int>(min(all_lines - first, int64_t{BlockMN}));
  }

  // The next tile has `left` k.
  __device__ __forceinline__ void load(int64_t left) {
    const int k = static_cast<int>(min(left, int64_t{kBlockK}));
    const int limit = along < (along_k ? k : lines) ? (along_k ? lines : k) : 0;
    const char* p = from;
#pragma unroll
    for (int i = 0; i < kCount; ++i, p += step) {
      held[i] = 0.f;
      if (across + i * across_step < limit)
        held[i] = is_bf16 ? to_f32(bf16{__ldg(reinterpret_cast<const uint16_t*>(p))})
                          : __ldg(reinterpret_cast<const float*>(p));
    }
    from += tile_step;
  }

  __device__ __forceinline__ void store(float* tile) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) tile[to + i * to_step] = held[i];
  }
};

// Count numbers from shared memory, four at a time.
template <int Count>
__device__ __forceinline__ void read_shared(float (&out)[Count], const float* from) {
  if constexpr (Count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Count; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      out[i] = v.x, out[i + 1] = v.y, out[i + 2] = v.z, out[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < Count; ++i) out[i] = from[i];
  }
}

// A block of Threads = BlockM / Rows × BlockN / Columns threads; Columns is 4, or 8 as two fours half a tile apart, so
// that neighbours read neighbouring banks.
template <int BlockM, int BlockN, int Rows, int Columns>
__device__ __forceinline__ void multiply(const GemmKernelParams& p) {
  constexpr int kAcross = BlockN / Columns, kThreads = BlockM / Rows * kAcross;
  constexpr int kFours = Columns / 4, kApart = BlockN / kFours;
  __shared__ __align__(16) float a_tile[kBlockK * Operand<BlockM, kThreads>::kRow];
  __shared__ __align__(16) float b_tile[kBlockK * Operand<BlockN, kThreads>::kRow];

  const GemmParams& g = p.g;
  const int2 tile = tile_of(static_cast<int>(blockIdx.x), p.tiles_m, p.tiles_n);
  const int64_t m0 = int64_t{tile.x} * BlockM, n0 = int64_t{tile.y} * BlockN;
  const int row = static_cast<int>(threadIdx.x) / kAcross * Rows;
  const int column = static_cast<int>(threadIdx.x) % kAcross * 4;
  int64_t chunk = p.partial != nullptr ? blockIdx.y : 0;
  const int64_t begin = chunk * p.chunk, end = p.partial != nullptr ? min(begin + p.chunk, g.K) : g.K;
  Operand<BlockM, kThreads> a(g.a, g.a_type, g.lda, !g.trans_a, m0, g.M, begin);
  Operand<BlockN, kThreads> b(g.b, g.b_type, g.ldb, g.trans_b, n0, g.N, begin);

  int64_t k0 = begin;
  a.load(end - k0);
  b.load(end - k0);
  do {
    const int64_t chunk_end = min(k0 + p.chunk, end);
    float acc[Rows][Columns] = {};
    for (; k0 < chunk_end; k0 += kBlockK) {
      __syncthreads();
      a.store(a_tile);
      b.store(b_tile);
      __syncthreads();
      a.load(end - k0 - kBlockK);
      b.load(end - k0 - kBlockK);
#pragma unroll 4
      for (int k = 0; k < kBlockK; ++k) {
        float x[Rows], y[kFours][4];
        read_shared(x, a_tile + k * a.kRow + row);
#pragma unroll
        for (int f = 0; f < kFours; ++f) read_shared(y[f], b_tile + k * b.kRow + column + f * kApart);
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
#pragma unroll
          for (int j = 0; j < Columns; ++j) acc[i][j] = __fmaf_rn(x[i], y[j / 4][j % 4], acc[i][j]);
        }
      }
    }
    const GemmTarget target(p, chunk);
    constexpr int kBatch = Rows < 4 ? Rows : 4;  // more at a time costs registers
#pragma unroll
    for (int i = 0; i < Rows; i += kBatch) {
#pragma unroll
      for (int j = 0; j < Columns; j += 4) {
        float4 sums[kBatch];
#pragma unroll
        for (int r = 0; r < kBatch; ++r)
          sums[r] = make_float4(acc[i + r][j], acc[i + r][j + 1], acc[i + r][j + 2], acc[i + r][j + 3]);
        target.put(m0 + row + i, 1, n0 + column + j / 4 * kApart, sums);
      }
    }
    ++chunk;
  } while (k0 < end);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gemm_any_128x128(const __grid_constant__ GemmKernelParams p) {
  multiply<128, 128, 8, 8>(p);
}
extern "C" __global__ void __launch_bounds__(128, 3) gemm_any_64x64(const __grid_constant__ GemmKernelParams p) {
  multiply<64, 64, 8, 4>(p);
}
// For few rows: decoding one token, or a handful of them.
extern "C" __global__ void __launch_bounds__(128) gemm_any_8x64(const __grid_constant__ GemmKernelParams p) {
  multiply<8, 64, 1, 4>(p);
}

// Adds the sums of all chunks to C, in their order.
extern "C" __global__ void __launch_bounds__(256) gemm_reduce(const __grid_constant__ GemmKernelParams p) {
  const GemmParams& g = p.g;
  const int64_t n = g.M * g.N, chunks = (g.K + p.chunk - 1) / p.chunk;
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < n; i += gridDim.x * int64_t{256}) {
    float* c = static_cast<float*>(g.c) + i / g.N * g.ldc + i % g.N;
    float value = updated(p.partial[i], g.alpha, g.beta, g.beta == 0.f ? 0.f : *c);
    for (int64_t chunk = 1; chunk < chunks; ++chunk) value = updated(p.partial[chunk * n + i], g.alpha, 1.f, value);
    *c = value;
  }
}
