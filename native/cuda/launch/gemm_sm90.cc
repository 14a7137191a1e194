#include "gemm_sm90.h"

#include <algorithm>

#include "params/gemm_sm90.h"

namespace westwind {
namespace {

// Numbers of the model below, in clocks of one multiprocessor. By count, not measured.
constexpr double kProductsPerClock = 2048;
constexpr double kBytesPerClock = 64;        // from the second-level cache to one multiprocessor
constexpr double kSharedBytesPerClock = 32;  // the same when all read
constexpr double kTileClocks = 2000;         // until the first stage is there, and to write C

struct NamedTile {
  const char* name;
  Sm90Tile tile;
};
constexpr NamedTile kTiles[] = {{"128x256", kSm90Large}, {"128x128", kSm90Medium}, {"64x64", kSm90Small}};

std::string kernel(bool trans_a, bool trans_b, const char* tile) {
  return std::string("gemm_bf16_sm90_") + (trans_a ? 't' : 'n') + (trans_b ? 't' : 'n') + '_' + tile;
}

int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Clocks that a block takes, roughly: it multiplies its tiles or reads them, whatever takes longer.
double clocks(const GemmShape& s, const Sm90Tile& tile, int64_t items, int64_t split, int sms) {
  const int64_t clusters = sms / tile.cluster, turns = pieces_of(items, clusters);
  const auto busy = static_cast<double>(std::min(items, clusters) * tile.cluster);
  const int64_t lines = std::min<int64_t>(s.M, tile.block_m()) + std::min<int64_t>(s.N, tile.block_n) / tile.cluster;
  const double multiply = tile.block_m() * tile.block_n / kProductsPerClock;
  const double read = static_cast<double>(2 * lines) / std::min(kBytesPerClock, kSharedBytesPerClock * sms / busy);
  const auto k = static_cast<double>(split > 1 ? chunk_of(s) : s.K);
  return static_cast<double>(turns) * (k * std::max(multiply, read) + kTileClocks) +
         (split > 1 ? reduce_clocks(s, sms) : 0);
}

}  // namespace

GemmConfig choose_gemm_sm90(const GemmShape& s, int sms) {
  GemmConfig best{};
  double least = 0;
  for (const auto& [name, tile] : kTiles) {
    const int block_m = tile.block_m() * tile.cluster;
    if (block_m >= 2 * s.M && block_m > kSm90Small.block_m()) continue;  // half of it empty, and there is a smaller one
    const int64_t tiles = pieces_of(s.M, block_m) * pieces_of(s.N, tile.block_n);
    for (const int64_t split : {int64_t{1}, pieces_of(s.K, chunk_of(s))}) {
      if (split > 1 && (!may_split(s) || tiles >= sms / tile.cluster)) continue;
      const double time = clocks(s, tile, tiles * split, split, sms);
      if (!best.kernel.empty() && time >= least) continue;
      least = time;
      best.kernel = kernel(s.trans_a, s.trans_b, name);
      best.block_m = block_m, best.block_n = tile.block_n, best.block_k = Sm90Tile::kBlockK;
      best.stages = tile.stages, best.threads = tile.threads(), best.cluster = tile.cluster;
      best.shared_bytes = tile.shared_bytes(), best.chunk = chunk_of(s), best.split = split;
    }
  }
  return best;
}

void add_gemm_sm90_kernels(std::vector<std::string>& out) {
  for (const NamedTile& tile : kTiles)
    for (const bool trans_a : {false, true})
      for (const bool trans_b : {false, true}) out.push_back(kernel(trans_a, trans_b, tile.name));
}

namespace cuda {
namespace {

struct Matrix {
  const void* data;
  DType type;
  int64_t columns, rows, ld;  // elements
  int64_t matrices;           // behind each other
};

// Rows of 128 bytes in shared memory, `box_rows` of them. Zeros beyond the edges.
Status describe(Context& context, const Matrix& m, int box_rows, int rank, CUtensorMap* map) {
  const auto bytes = static_cast<cuuint64_t>(size_of(m.type));
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows),
                              static_cast<cuuint64_t>(m.matrices)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(m.ld) * bytes, static_cast<cuuint64_t>(m.rows * m.ld) * bytes};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(Sm90Tile::kRowBytes / bytes), static_cast<cuuint32_t>(box_rows), 1};
  const cuuint32_t steps[] = {1, 1, 1};
  return check(context.driver(),
               context.driver().cuTensorMapEncodeTiled(
                   map, m.type == DType::kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                   static_cast<cuuint32_t>(rank), const_cast<void*>(m.data), sizes, strides, box, steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
               "gemm: describe a matrix");
}

}  // namespace

Status launch_gemm_sm90(Context& context, const GemmConfig& config, const GemmKernelParams& k) {
  const GemmParams& g = k.g;
  const int rows = config.block_m / config.cluster, columns = config.block_n / config.cluster;  // loaded by a block
  GemmSm90Params p{};
  // K-major: a row of the tile is a row of the box. Else the box is 64 of K by 64 rows of the tile.
  const Matrix a{g.a, DType::kBf16, g.trans_a ? g.M : g.K, g.trans_a ? g.K : g.M, g.lda, 1};
  const Matrix b{g.b, DType::kBf16, g.trans_b ? g.K : g.N, g.trans_b ? g.N : g.K, g.ldb, 1};
  Status status = describe(context, a, g.trans_a ? Sm90Tile::kBlockK : rows, 2, &p.a);
  if (status.ok) status = describe(context, b, g.trans_b ? columns : Sm90Tile::kBlockK, 2, &p.b);
  if (!status.ok) return status;

  const bool split = k.partial != nullptr;
  p.sums = static_cast<int32_t>(split ? config.split : 1);
  p.out = split ? k.partial : g.c;
  p.ldc = split ? g.N : g.ldc;
  p.sum_stride = g.M * g.N;
  p.alpha = split ? 1.f : g.alpha;
  p.beta = split ? 0.f : g.beta;
  p.M = static_cast<int32_t>(g.M), p.N = static_cast<int32_t>(g.N), p.K = static_cast<int32_t>(g.K);
  p.tiles_m = k.tiles_m, p.tiles_n = k.tiles_n;
  p.chunk = static_cast<int32_t>(k.chunk);
  p.c_is_bf16 = g.c_type == DType::kBf16;
  p.by_tma = (reinterpret_cast<uintptr_t>(p.out) & 15) == 0 && p.ldc * size_of(g.c_type) % 16 == 0;
  if (p.by_tma != 0) {
    status = describe(context, {p.out, g.c_type, g.N, g.M, p.ldc, p.sums}, Sm90Tile::kSlabRows, 3, &p.c);
    if (!status.ok) return status;
  }

  const int64_t items = int64_t{p.tiles_m} * p.tiles_n * p.sums;
  const int64_t clusters = std::min<int64_t>(items, context.facts().sms / config.cluster);
  return context.launch(config.kernel,
                        {{static_cast<unsigned>(clusters * config.cluster)},
                         static_cast<unsigned>(config.threads),
                         static_cast<unsigned>(config.shared_bytes),
                         static_cast<unsigned>(config.cluster)},
                        p);
}

}  // namespace cuda
}  // namespace westwind
