// gemm of bf16 on the tensor cores of sm_80 and later (mma.sync), for bases and row strides on 16-byte boundaries.
//
// cp.async brings Stages tiles of both operands to shared memory ahead of use, in the order they are stored, k running
// along rows or across them; ldmatrix (plain or transposing) makes fragments of either, one step of 16 k ahead of the
// products. Every element of C is the sum of the same mma over ascending k whatever the tile, so tiles may be chosen
// freely. Limited by the tensor cores in big tiles, by HBM in thin ones. Contract: ops/gemm.h
#pragma once
#include "cp_async.cuh"
#include "gemm_update.cuh"
#include "mma.cuh"

namespace westwind {

// How one operand's tile lies in shared memory: rows of the tensor, or parts of them.
template <bool AlongK, int BlockMN, int BlockK>
struct TileLayout {
  static constexpr int kRows = AlongK ? BlockMN : BlockK;
  static constexpr int kRowBytes = 2 * (AlongK ? BlockK : BlockMN);
  static constexpr int kBytes = kRows * kRowBytes;
  static_assert(kBytes % 128 == 0);
};

// This thread's share of copying the tiles of an operand. Ragged: rows may end within a piece of 16 bytes.
template <bool AlongK, int BlockMN, int BlockK, int Threads, bool Ragged>
struct TileCopy {
  using Layout = TileLayout<AlongK, BlockMN, BlockK>;
  static constexpr int kPieces = Layout::kRowBytes / 16;  // in a row
  static constexpr int kStep = Threads / kPieces;         // rows from one of this thread's pieces to the next
  static constexpr int kCount = Layout::kRows / kStep;
  static_assert(Threads % kPieces == 0 && kStep % 8 == 0 && Layout::kRows % kStep == 0, "one swizzle per thread");

  const char* from;  // the first piece in the next tile
  int64_t row_step, tile_step;
  uint32_t to;    // of the first piece, in a tile
  uint32_t mask;  // bit i: piece i is not all outside
  int bytes;      // of a piece that are inside, where Ragged
  int row, piece;

  // Lines first .. first + BlockMN of op(A)'s rows or op(B)'s columns, from k on.
  __device__ __forceinline__ TileCopy(const void* base, int64_t ld, int64_t first, int64_t lines, int64_t k) {
    row = static_cast<int>(threadIdx.x) / kPieces, piece = static_cast<int>(threadIdx.x) % kPieces;
    to = swizzled<Layout::kRowBytes>(row, piece);
    const int64_t row0 = AlongK ? first : k, column0 = AlongK ? k : first;
    from = static_cast<const char*>(base) + ((row0 + row) * ld + column0 + piece * 8) * 2;
    row_step = kStep * ld * 2;
    tile_step = AlongK ? BlockK * 2 : BlockK * ld * 2;
    const int left = static_cast<int>(min(lines - first, int64_t{BlockMN}));
    mask = AlongK ? rows_in(left) : columns_in(left);
    bytes = AlongK ? 16 : part(left);
  }

  __device__ __forceinline__ uint32_t rows_in(int left) const {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) bits |= static_cast<uint32_t>(row + i * kStep < left) << i;
    return bits;
  }
  __device__ __forceinline__ uint32_t columns_in(int left) const { return 8 * piece < left ? ~0u : 0u; }
  __device__ __forceinline__ int part(int left) const { return max(0, min(16, 2 * left - 16 * piece)); }

  // The next tile is the last, of `left` k.
  __device__ __forceinline__ void end(int left) {
    mask &= AlongK ? columns_in(left) : rows_in(left);
    if (AlongK) bytes = part(left);
  }

  __device__ __forceinline__ void copy(uint32_t tile) {
    const char* p = from;
#pragma unroll
    for (int i = 0; i < kCount; ++i, p += row_step)
      cp_async<16>(tile + to + i * kStep * Layout::kRowBytes, p, mask >> i & 1 ? Ragged ? bytes : 16 : 0);
    from += tile_step;
  }
};

// This warp's WarpMN lines of an operand's tile, as fragments of 16 lines × 16 k: A's as mma takes them, B's as two of
// 8 lines, {r[0], r[1]} and {r[2], r[3]}.
template <bool AlongK, bool IsB, int BlockMN, int BlockK, int WarpMN>
struct TileRead {
  using Layout = TileLayout<AlongK, BlockMN, BlockK>;
  static constexpr int kCount = WarpMN / 16;
  uint32_t at;  // what this lane points ldmatrix at, in a tile: first lines, first k

  __device__ __forceinline__ explicit TileRead(int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32, r = lane % 8;
    const int low = lane / 8 % 2, high = lane / 16;  // which half of k or of the 16 lines the lane's matrix is
    const int line = first + 8 * (IsB ? high : low), k = 8 * (IsB ? low : high);
    at = AlongK ? swizzled<Layout::kRowBytes>(line + r, k / 8) : swizzled<Layout::kRowBytes>(k + r, line / 8);
  }

  // The offsets that vary have bits of their own in the number of the piece, so that the swizzle is an XOR away.
  __device__ __forceinline__ void read(uint32_t (&out)[kCount][4], uint32_t tile, int step) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (AlongK) {
        ldmatrix_x4(out[i], ((tile + at) ^ (step * 32)) + i * 16 * Layout::kRowBytes);
      } else {
        ldmatrix_x4_trans(out[i], ((tile + at) ^ (i * 32)) + step * 16 * Layout::kRowBytes);
      }
    }
  }
};

// The sums of a warp into C, by way of `mine`, shared memory of this warp: from the registers of mma to rows.
template <int WarpM, int WarpN>
struct SumsWrite {
  using Sums = float[WarpM / 16][WarpN / 8][4];
  static constexpr int kSlice = WarpM < 32 ? WarpM : 32;  // rows at a time
  static constexpr int kRow = WarpN + 8;                  // floats: 4 rows of pairs fall on different banks
  static constexpr int kBytes = kSlice * kRow * 4;
  static constexpr int kLanes = WarpN / 4, kRowsAtOnce = 32 / kLanes, kPasses = kSlice / kRowsAtOnce;
  static constexpr int kBatch = kPasses < 4 ? kPasses : 4;

  __device__ __forceinline__ static void put(float* mine, const GemmTarget& target, Sums& acc, int64_t row,
                                             int64_t column) {
    // Asked for here, lest all that follows from it is worked out before the products and kept in registers.
    uint32_t id;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(id));
    const int lane = static_cast<int>(id % 32);
    if (target.rounded_eights())
      put_rounded(mine, target, acc, row, column, lane);
    else
      put_sums(mine, target, acc, row, column, lane);
  }

 private:
  __device__ __forceinline__ static void put_sums(float* mine, const GemmTarget& target, const Sums& acc, int64_t row,
                                                  int64_t column, int lane) {
    float* const to = mine + lane / 4 * kRow + lane % 4 * 2;
    const float* const from = mine + lane / kLanes * kRow + lane % kLanes * 4;
#pragma unroll
    for (int slice = 0; slice < WarpM / kSlice; ++slice) {
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kSlice / 16; ++i) {
#pragma unroll
        for (int j = 0; j < WarpN / 8; ++j) {
          const float(&sum)[4] = acc[slice * (kSlice / 16) + i][j];
          *reinterpret_cast<float2*>(to + i * 16 * kRow + j * 8) = make_float2(sum[0], sum[1]);
          *reinterpret_cast<float2*>(to + (i * 16 + 8) * kRow + j * 8) = make_float2(sum[2], sum[3]);
        }
      }
      __syncwarp();
#pragma unroll 1
      for (int pass = 0; pass < kPasses; pass += kBatch) {
        float4 sums[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i)
          sums[i] = *reinterpret_cast<const float4*>(from + (pass + i) * kRowsAtOnce * kRow);
        target.put(row + slice * kSlice + pass * kRowsAtOnce + lane / kLanes, kRowsAtOnce, column + lane % kLanes * 4,
                   sums);
      }
    }
  }

  // Into bf16 without old values: what is final is rounded at once, and takes half the way.
  __device__ __forceinline__ static void put_rounded(float* mine, const GemmTarget& target, Sums& acc, int64_t row,
                                                     int64_t column, int lane) {
    constexpr int kRowBytes = 2 * WarpN, kPieces = WarpN / 8, kRows = 32 / kPieces;  // kRows at once
    static_assert(WarpM * kRowBytes <= kBytes && kBytes % 128 == 0 && kRows % 4 == 0);
    const int piece = lane % kPieces, first = lane / kPieces;
    unsigned char* const rows = reinterpret_cast<unsigned char*>(mine);
    if (target.alpha != 1.f) {
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < WarpN / 8; ++j) {
#pragma unroll
          for (float& sum : acc[i][j]) sum *= target.alpha;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < WarpN / 8; ++j) {
      unsigned char* const to = rows + swizzled<kRowBytes>(lane / 4, j) + lane % 4 * 4;
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) {
        const float(&sum)[4] = acc[i][j];
        *reinterpret_cast<uint32_t*>(to + i * 16 * kRowBytes) = pack_bf16(sum[0], sum[1]);
        *reinterpret_cast<uint32_t*>(to + (i * 16 + 8) * kRowBytes) = pack_bf16(sum[2], sum[3]);
      }
    }
    __syncwarp();
    if (column + piece * 8 >= target.columns) return;
    bf16* c = static_cast<bf16*>(target.c) + (row + first) * target.ld + column + piece * 8;
    const int left = static_cast<int>(min(target.rows - row - first, int64_t{WarpM}));
    constexpr int kAtOnce = WarpM < 4 * kRows ? WarpM : 4 * kRows;
#pragma unroll
    for (int at = 0; at < WarpM; at += kAtOnce) {
      uint4 pieces[kAtOnce / kRows];
#pragma unroll
      for (int r = 0; r < kAtOnce; r += kRows) {
        const int order = first + (at + r) % 8;  // of rows 8 further it is the same
        pieces[r / kRows] =
            *reinterpret_cast<const uint4*>(rows + swizzled<kRowBytes>(order, piece) + (at + r) / 8 * 8 * kRowBytes);
      }
#pragma unroll
      for (int r = 0; r < kAtOnce; r += kRows, c += kRows * target.ld)
        if (at + r < left) __stcg(reinterpret_cast<uint4*>(c), pieces[r / kRows]);
    }
  }
};

template <bool TransA, bool TransB, int BlockM, int BlockN, int BlockK, int WarpM, int WarpN, int Stages,
          bool Ragged = false>
__device__ __forceinline__ void gemm_mma(const GemmKernelParams& p) {
  constexpr int kWarpsN = BlockN / WarpN, kThreads = BlockM / WarpM * kWarpsN * 32;
  constexpr int kSteps = BlockK / 16;
  constexpr int kTilesM = WarpM / 16, kTilesN = WarpN / 8;
  using CopyA = TileCopy<!TransA, BlockM, BlockK, kThreads, Ragged>;
  using CopyB = TileCopy<TransB, BlockN, BlockK, kThreads, Ragged>;
  constexpr uint32_t kBytesA = CopyA::Layout::kBytes, kStageBytes = kBytesA + CopyB::Layout::kBytes;
  using Write = SumsWrite<WarpM, WarpN>;
  static_assert(kSteps % 2 == 0 && kChunkK % BlockK == 0);
  static_assert(kThreads / 32 * Write::kBytes <= Stages * kStageBytes, "the tiles' place is used again");

  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t stages = shared_address(shared), stages_end = stages + Stages * kStageBytes;
  const GemmParams& g = p.g;
  const int2 tile = tile_of(static_cast<int>(blockIdx.x), p.tiles_m, p.tiles_n);
  const int64_t m0 = int64_t{tile.x} * BlockM, n0 = int64_t{tile.y} * BlockN;
  int64_t chunk = p.partial != nullptr ? blockIdx.y : 0;
  const int64_t begin = chunk * p.chunk, end = p.partial != nullptr ? min(begin + p.chunk, g.K) : g.K;

  CopyA copy_a(g.a, g.lda, m0, g.M, begin);
  CopyB copy_b(g.b, g.ldb, n0, g.N, begin);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_m = warp / kWarpsN * WarpM, warp_n = warp % kWarpsN * WarpN;
  const TileRead<!TransA, false, BlockM, BlockK, WarpM> read_a(warp_m);
  const TileRead<TransB, true, BlockN, BlockK, WarpN> read_b(warp_n);

  float* const mine = reinterpret_cast<float*>(shared + warp * Write::kBytes);

  for (int64_t k = begin; k < end; k += p.chunk, ++chunk) {
    const int64_t length = min(p.chunk, end - k);
    int left = static_cast<int>((length + BlockK - 1) / BlockK);  // tiles
    int to_copy = left;
    const int rest = static_cast<int>(length - int64_t{left - 1} * BlockK);
    const auto copy_next = [&](uint32_t stage) {
      if (to_copy == 1) copy_a.end(rest), copy_b.end(rest);
      if (to_copy > 0) {
        copy_a.copy(stage);
        copy_b.copy(stage + kBytesA);
      }
      --to_copy;
      cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < Stages - 1; ++i) copy_next(stages + i * kStageBytes);

    float acc[kTilesM][kTilesN][4] = {};
    uint32_t a[2][kTilesM][4], b[2][kTilesN / 2][4];
    uint32_t reading = stages, writing = stages_end - kStageBytes;
    cp_async_wait<Stages - 2>();
    __syncthreads();
    read_a.read(a[0], reading, 0);
    read_b.read(b[0], reading + kBytesA, 0);
    for (; left > 0; --left) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        if (step == kSteps - 1) {
          // The next tile has arrived, and of this one all is in registers. Behind the last, its own first step is read
          // again and not used.
          cp_async_wait<Stages - 2>();
          __syncthreads();
          writing = reading;
          const uint32_t next = reading + kStageBytes == stages_end ? stages : reading + kStageBytes;
          reading = left > 1 ? next : reading;
        }
        read_a.read(a[(step + 1) % 2], reading, (step + 1) % kSteps);
        read_b.read(b[(step + 1) % 2], reading + kBytesA, (step + 1) % kSteps);
        if (step == 0) copy_next(writing);
#pragma unroll
        for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
          for (int j = 0; j < kTilesN; ++j) {
            const uint32_t(&pair)[4] = b[step % 2][j / 2];
            mma_bf16(acc[i][j], a[step % 2][i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
          }
        }
      }
    }
    __syncthreads();
    Write::put(mine, GemmTarget(p, chunk), acc, m0 + warp_m, n0 + warp_n);
    __syncthreads();
  }
}

}  // namespace westwind
