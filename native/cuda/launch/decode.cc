#include "params/decode.h"

#include <stdint.h>

#include <algorithm>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr unsigned kThreads = 128;
constexpr int64_t kSumsBytes = int64_t{64} << 20;  // of partial results in one launch
constexpr int64_t kRowsMost = 32768;               // of one launch: rows are grid.y of the combine kernel
constexpr int64_t kFullGpu = 4;                    // blocks per multiprocessor that run at once
constexpr int64_t kSpread = 16;                    // blocks per multiprocessor, for rows much shorter than the cache
constexpr int kPlainHeads = 4;                     // query heads of a block of the kernels without tensor cores
constexpr const char *kAttention = "decode_attention", *kAppend = "kv_append", *kGather = "kv_gather";

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
bool on16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

std::string tensor_core_kernel(int d, bool wide) {
  return kernel_of(kAttention, DType::kBf16, "_d" + std::to_string(d) + (wide ? "_n16" : "_n8"));
}
std::string plain_kernel(DType dtype, bool scalar) { return kernel_of(kAttention, dtype, scalar ? "_scalar" : ""); }
std::string combine_kernel(DType dtype) { return kernel_of(kAttention, dtype, "_combine"); }

struct Plan {
  std::string kernel;
  int64_t columns;  // (row, head) pairs of a block
  unsigned shared_bytes;
};

Plan choose(const Context& context, const DecodeAttentionParams& p) {
  const int64_t group = p.Hq / p.Hkv, vec = 16 / size_of(p.dtype);
  const bool aligned = p.D % vec == 0 && on16(p.qkv) && on16(p.k_cache) && on16(p.v_cache) && on16(p.out);
  if (p.dtype == DType::kBf16 && aligned && p.D <= 256) {
    // 16 columns where a group needs them, or where the rows are so many that sharing keys is worth more than
    // spreading.
    const bool wide = p.D <= 128 && (group > 8 || p.T * p.Hkv >= kFullGpu * context.facts().sms * (16 / group));
    return {tensor_core_kernel(p.D <= 64 ? 64 : p.D <= 128 ? 128 : 256, wide), wide ? 16 : 8, 0};
  }
  const bool scalar = p.dtype == DType::kBf16 || !aligned;
  return {plain_kernel(p.dtype, scalar), kPlainHeads, static_cast<unsigned>(kPlainHeads * p.D * 4)};
}

}  // namespace

void add_decode_names(Names& out) {
  for (const DType dtype : kFloats)
    out.insert(out.end(), {kernel_of(kAppend, dtype), kernel_of(kGather, dtype), plain_kernel(dtype, true),
                           combine_kernel(dtype)});
  out.push_back(plain_kernel(DType::kF32, false));
  for (const int d : {64, 128, 256}) out.push_back(tensor_core_kernel(d, false));
  for (const int d : {64, 128}) out.push_back(tensor_core_kernel(d, true));
}

Status kv_append(Context& context, const KvAppendParams& p) {
  if (p.T == 0) return {};
  KvAppendLaunch w{p, context.fault(), 0, 0};
  w.slot_fault = context.expect_fault("kv_append", "slot must be in [0, " + std::to_string(p.slots) + ")");
  w.position_fault = context.expect_fault("kv_append", "position must be in [0, " + std::to_string(p.length) + ")");
  return context.launch(kernel_of(kAppend, p.dtype), {{static_cast<unsigned>(ceil_div(p.T, 8))}, 256}, w);
}

Status kv_gather(Context& context, const KvGatherParams& p) {
  if (p.T == 0) return {};
  KvGatherLaunch w{p, context.fault(), 0, 0};
  w.slot_fault = context.expect_fault("kv_gather", "slot must be in [0, " + std::to_string(p.slots) + ")");
  w.position_fault = context.expect_fault("kv_gather", "position must be in [0, " + std::to_string(p.length) + ")");
  return context.launch(kernel_of(kGather, p.dtype), {{static_cast<unsigned>(p.T)}, 128}, w);
}

Status decode_attention(Context& context, const DecodeAttentionParams& p) {
  if (p.T == 0) return {};
  const int64_t group = p.Hq / p.Hkv, sms = context.facts().sms;
  const Plan plan = choose(context, p);
  if (plan.shared_bytes > 64 << 10) return fail("decode_attention: D must be at most 4096, got %d", p.D);
  DecodeLaunch w{};
  w.p = p, w.fault = context.fault();
  w.slot_fault = context.expect_fault("decode_attention", "slot must be in [0, " + std::to_string(p.slots) + ")");
  w.position_fault =
      context.expect_fault("decode_attention", "position must be in [0, " + std::to_string(p.length) + ")");
  w.chunks = static_cast<int32_t>(std::max<int64_t>(ceil_div(p.length, kKeyChunk), 1));
  w.head_blocks = static_cast<int32_t>(ceil_div(group, plan.columns));
  const int64_t head_blocks = int64_t{p.Hkv} * w.head_blocks;
  const bool tensor_cores = plan.columns > kPlainHeads;
  w.rows_per_block = static_cast<int32_t>(
      tensor_cores ? std::clamp<int64_t>(p.T * p.Hkv / (kFullGpu * sms), 1, std::max<int64_t>(plan.columns / group, 1))
                   : 1);

  Status status;
  const bool split = w.chunks > 1;
  const int64_t row_bytes = int64_t{w.chunks} * p.Hq * (p.D + 2) * 4;
  const int64_t most = std::clamp<int64_t>(split ? kSumsBytes / row_bytes : kRowsMost, 1, kRowsMost);
  if (split) {
    const int64_t sums = (std::min(most, p.T) * w.chunks * p.Hq + 1) / 2 * 2;  // even: what follows is on 16 bytes
    status = context.workspace(sums * (p.D + 2) * 4, &w.stats);
    if (!status.ok) return status;
    w.sums = reinterpret_cast<float*>(w.stats + sums);
  }
  for (int64_t first = 0; first < p.T && status.ok; first += most) {
    w.first_row = first;
    w.rows = std::min(most, p.T - first);
    const int64_t row_blocks = ceil_div(w.rows, w.rows_per_block);
    const int64_t splits = std::clamp<int64_t>(ceil_div(kSpread * sms, row_blocks * head_blocks), 1, w.chunks);
    status = context.launch(plan.kernel,
                            {{static_cast<unsigned>(row_blocks), static_cast<unsigned>(head_blocks),
                              static_cast<unsigned>(std::min<int64_t>(splits, 65535))},
                             kThreads,
                             plan.shared_bytes},
                            w);
    if (status.ok && split)
      status = context.launch(combine_kernel(p.dtype),
                              {{static_cast<unsigned>(p.Hq), static_cast<unsigned>(w.rows)}, kThreads}, w);
  }
  return status;
}

}  // namespace westwind::cuda
