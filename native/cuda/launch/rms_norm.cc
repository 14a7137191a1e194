#include "params/rms_norm.h"

#include <algorithm>
#include <iterator>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

// Rows per partial dweight: at least this many, and more where that made more than kMostChunks partials. It depends on
// T alone, so that every GPU adds in the same order. 512 is a full wave of blocks on 108 to 132 multiprocessors.
constexpr int64_t kLeastRows = 4;
constexpr int64_t kMostChunks = 512;

// Threads that share a row, 16 elements each: the fewest that hold it, or 512 that read what is left twice.
constexpr int kTeams[] = {32, 64, 128, 256, 512};
int team_for(int64_t C) {
  return *std::find_if(std::begin(kTeams), std::end(kTeams) - 1, [&](int team) { return C <= team * 16; });
}

// `rows` teams, and the name of the kernel for them.
Launch blocks_of(int team, int64_t rows) {
  const int threads = team == 32 ? 256 : team;
  const int64_t teams = threads / team;
  return {{static_cast<unsigned>((rows + teams - 1) / teams)}, static_cast<unsigned>(threads)};
}

std::string kernel(const char* op, DType dtype, int team) { return kernel_of(op, dtype) + "_" + std::to_string(team); }
constexpr const char* kSumChunks = "rms_norm_backward_dweight";

}  // namespace

void add_rms_norm_names(Names& out) {
  for (const DType dtype : kFloats) {
    for (const int team : kTeams)
      out.insert(out.end(), {kernel("rms_norm", dtype, team), kernel("rms_norm_backward", dtype, team)});
    out.push_back(kernel_of(kSumChunks, dtype));
  }
}

Status rms_norm(Context& context, const RmsNormParams& p) {
  if (p.T == 0) return {};
  const int team = team_for(p.C);
  return context.launch(kernel("rms_norm", p.dtype, team), blocks_of(team, p.T), p);
}

Status rms_norm_backward(Context& context, const RmsNormBackwardParams& p) {
  if (p.T == 0 || p.C == 0) return {};
  const bool bf16 = p.dtype == DType::kBf16;
  const int64_t vec = bf16 ? 8 : 4;
  RmsNormBackwardLaunch launch{};
  launch.p = p;
  launch.rows = std::max(kLeastRows, (p.T + kMostChunks - 1) / kMostChunks);
  launch.chunks = (p.T + launch.rows - 1) / launch.rows;
  launch.width = (p.C + vec - 1) / vec * vec;
  Status status = context.workspace(launch.chunks * launch.width * 4, &launch.partials);
  if (!status.ok) return status;
  const int team = team_for(p.C);
  status = context.launch(kernel("rms_norm_backward", p.dtype, team), blocks_of(team, launch.chunks), launch);
  if (!status.ok) return status;
  const Launch sum{{static_cast<unsigned>((launch.width / 4 + 31) / 32)}, 512};
  return context.launch(kernel_of(kSumChunks, p.dtype), sum, launch);
}

}  // namespace westwind::cuda
