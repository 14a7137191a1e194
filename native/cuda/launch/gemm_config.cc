#include "gemm_config.h"

#include <algorithm>

#include "gemm_sm90.h"

namespace westwind {
namespace {

// Numbers of the model below, in clocks of one multiprocessor.
constexpr double kBytesPerClock = 32;     // from the second-level cache, all multiprocessors reading
constexpr double kDramPerClock = 12;      // from memory, the same
constexpr double kBlockClocks = 2500;     // to fill the stages, and to write C
constexpr double kReduceClocks = 10'000;  // one more launch

struct Tile {
  const char* name;
  int m, n, k, warp_m, warp_n, stages;

  int threads() const { return m / warp_m * (n / warp_n) * 32; }
  // Of what the units can do, when there are enough blocks: shared memory and the turns of the loop take the rest.
  double efficiency() const { return warp_m * warp_n / (warp_m * warp_n + 500.0); }
};

#define WESTWIND_GEMM_TILE(M, N, K, WarpM, WarpN, Stages) {#M "x" #N, M, N, K, WarpM, WarpN, Stages},
constexpr Tile kTensorTiles[] = {WESTWIND_GEMM_TILES(WESTWIND_GEMM_TILE)};
constexpr Tile kRaggedTile{"64x64_ragged", 64, 64, 64, 32, 32, 3};
// A warp of gemm_any is 32 threads of 8 × 8, 8 × 4 or 1 × 4 sums; its shared memory is static.
constexpr Tile kAnyTiles[] = {
    {"128x128", 128, 128, 16, 32, 64, 0}, {"64x64", 64, 64, 16, 16, 64, 0}, {"8x64", 8, 64, 16, 2, 64, 0}};

int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

int64_t tiles_of(const GemmShape& s, const Tile& tile) { return pieces_of(s.M, tile.m) * pieces_of(s.N, tile.n); }

// What tensor cores of sm_80, sm_90 (mma.sync), sm_86 and sm_89, and f32 units do in a clock: multiply-adds.
double products_per_clock(bool tensor_cores, int arch) {
  if (tensor_cores) return arch == 86 || arch == 89 ? 512 : 1024;
  return arch == 80 ? 64 : 128;
}

// Clocks that the busiest multiprocessor takes, roughly: it computes its blocks or reads them, whatever takes longer.
double clocks(const GemmShape& s, const Tile& tile, int64_t split, int arch, int sms) {
  const int64_t k = split > 1 ? std::min(s.K, kChunkK) : s.K;
  const auto turns = static_cast<double>(pieces_of(tiles_of(s, tile) * split, sms));
  const double compute = tile.m * tile.n / (products_per_clock(s.tensor_cores, arch) * tile.efficiency());
  const auto lines = static_cast<double>(std::min<int64_t>(s.M, tile.m) + std::min<int64_t>(s.N, tile.n));
  const double reads = lines * (s.tensor_cores ? 2 : 4) / kBytesPerClock;
  const double sums = split > 1 ? reduce_clocks(s, sms) : 0;
  return turns * (static_cast<double>(k) * std::max(compute, reads) + kBlockClocks) + sums;
}

constexpr const char* kAny = "gemm_any_";
std::string tensor_family(bool trans_a, bool trans_b) {
  return std::string("gemm_bf16_sm80_") + (trans_a ? 't' : 'n') + (trans_b ? 't' : 'n') + '_';
}

GemmConfig config_of(const std::string& kernel, const Tile& tile, int64_t chunk) {
  const int shared = 2 * tile.stages * (tile.m + tile.n) * tile.k;
  return {kernel + tile.name, tile.m, tile.n, tile.k, tile.stages, tile.threads(), shared, chunk, 1};
}

template <int Count>
GemmConfig best_of(const GemmShape& s, const std::string& kernel, const Tile (&tiles)[Count], int arch, int sms,
                   int shared_bytes) {
  const int64_t chunk = chunk_of(s), chunks = pieces_of(s.K, chunk);
  GemmConfig best{};
  double least = 0;
  for (const Tile& tile : tiles) {
    GemmConfig config = config_of(kernel, tile, chunk);
    const bool half_empty = tile.m >= 2 * s.M && tile.m > tiles[Count - 1].m;  // and there is a thinner one
    if (config.shared_bytes > shared_bytes || half_empty) continue;
    for (const int64_t split : {int64_t{1}, chunks}) {
      if (split > 1 && (!may_split(s) || tiles_of(s, tile) >= sms)) continue;
      const double time = clocks(s, tile, split, arch, sms);
      if (!best.kernel.empty() && time >= least) continue;
      config.split = split;
      best = config;
      least = time;
    }
  }
  return best;
}

}  // namespace

int64_t chunk_of(const GemmShape& s) { return s.f32_out ? kChunkK : std::max<int64_t>(pieces_of(s.K, 64), 1) * 64; }

bool may_split(const GemmShape& s) {
  constexpr int64_t kMostBytes = int64_t{64} << 20;  // of sums; beyond, a block walks its chunks
  const int64_t chunks = pieces_of(s.K, chunk_of(s));
  return chunks > 1 && chunks * s.M * s.N * 4 <= kMostBytes;
}

double reduce_clocks(const GemmShape& s, int sms) {
  const int64_t bytes = 2 * pieces_of(s.K, chunk_of(s)) * s.M * s.N * 4;
  return static_cast<double>(bytes) / (kDramPerClock * sms) + kReduceClocks;
}

GemmConfig choose_gemm(const GemmShape& s, int arch, int sms, int shared_bytes) {
  if (!s.tensor_cores || s.K == 0) return best_of(s, kAny, kAnyTiles, arch, sms, shared_bytes);
  if (arch == 90 && std::max({s.M, s.N, s.K}) <= kSm90MostLines) return choose_gemm_sm90(s, sms);
  const std::string kernel = tensor_family(s.trans_a, s.trans_b);
  if (s.ragged) return best_of(s, kernel, {kRaggedTile}, arch, sms, shared_bytes);
  return best_of(s, kernel, kTensorTiles, arch, sms, shared_bytes);
}

std::vector<std::string> gemm_kernels() {
  std::vector<std::string> out;
  for (const Tile& tile : kAnyTiles) out.push_back(kAny + std::string(tile.name));
  for (const bool trans_a : {false, true})
    for (const bool trans_b : {false, true}) {
      const std::string family = tensor_family(trans_a, trans_b);
      for (const Tile& tile : kTensorTiles) out.push_back(family + tile.name);
      out.push_back(family + kRaggedTile.name);
    }
  add_gemm_sm90_kernels(out);
  return out;
}

}  // namespace westwind
