#include "attention_sm90.h"

#include <stdint.h>

#include <initializer_list>
#include <string>

#include "names.h"
#include "params/attention_sm90.h"

namespace westwind::cuda {
namespace {

// The kernels have the same numbers: the instances at the end of attention_fwd_sm90.cu, attention_bwd_dq_sm90.cu and
// attention_bwd_dkv_sm90.cu.
struct ForwardInstance {
  int32_t D;       // of the tensors, at most
  int32_t groups;  // warpgroups of 64 queries
  int32_t keys, stages;
};
constexpr ForwardInstance kForward[] = {{64, 3, 96, 4}, {96, 2, 128, 2}, {128, 2, 128, 2}, {256, 2, 64, 2}};

struct BackwardInstance {
  int32_t D, stages;
};
constexpr BackwardInstance kBackward[] = {{64, 4}, {96, 4}, {128, 4}};
constexpr const char *kForwardKernel = "attention_fwd", *kKeyKernel = "attention_bwd_dkv",
                     *kQueryKernel = "attention_bwd_dq";
std::string kernel(const char* pass, int32_t D) { return kernel_of(pass, DType::kBf16, "_sm90_d" + std::to_string(D)); }

constexpr int32_t kBackwardGroups = 2, kBackwardStep = 64;

constexpr int64_t kAlignment = 1024;                         // of swizzled tiles
constexpr int64_t kForwardMore = 512, kBackwardMore = 4096;  // barriers and what goes with a tile

template <class Instance, size_t kCount>
const Instance* instance_for(const Instance (&instances)[kCount], int32_t D) {
  for (const Instance& instance : instances)
    if (D <= instance.D) return &instance;
  return nullptr;
}

// Bytes of so many rows of tiles.
int64_t tile_bytes(int32_t rows, int32_t D) {
  return int64_t{2} * rows * ((D + kBoxColumns - 1) / kBoxColumns * kBoxColumns);
}

// TMA needs addresses and strides of 16 bytes. The softmax takes the scale out of the maximum and hides a key before
// the scale, by −∞: it must be above 0.
bool fits(const Context& context, DType dtype, int32_t D, float scale, std::initializer_list<const void*> tensors) {
  for (const void* tensor : tensors)
    if (reinterpret_cast<uintptr_t>(tensor) % 16 != 0) return false;
  return context.facts().arch == 90 && dtype == DType::kBf16 && D % 8 == 0 && scale > 0;
}

// bf16 [T, heads, D] in boxes of rows of one head.
Status map_rows(const Context& context, const void* tensor, int64_t T, int64_t heads, int64_t D, RowBoxes* out) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(D), static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(T)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(2 * D), static_cast<cuuint64_t>(2 * heads * D)};
  const cuuint32_t steps[] = {1, 1, 1};
  for (int i = 0; i < kRowBoxes; ++i) {
    const cuuint32_t box[] = {kBoxColumns, 1, 1u << i};
    const CUresult result = context.driver().cuTensorMapEncodeTiled(
        &out->rows[i], CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(tensor), sizes, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    const Status status = check(context.driver(), result, "attention: describing a tensor to TMA");
    if (!status.ok) return status;
  }
  return {};
}

}  // namespace

void add_attention_sm90_names(Names& out) {
  for (const ForwardInstance& instance : kForward) out.push_back(kernel(kForwardKernel, instance.D));
  for (const BackwardInstance& instance : kBackward)
    out.insert(out.end(), {kernel(kKeyKernel, instance.D), kernel(kQueryKernel, instance.D)});
}

int32_t attention_sm90_rows(const Context& context, const AttentionParams& p) {
  const ForwardInstance* instance = instance_for(kForward, p.D);
  return instance != nullptr && fits(context, p.dtype, p.D, p.scale, {p.qkv, p.out}) ? 64 * instance->groups : 0;
}

int32_t attention_backward_sm90_rows(const Context& context, const AttentionBackwardParams& p) {
  return instance_for(kBackward, p.D) != nullptr && fits(context, p.dtype, p.D, p.scale, {p.qkv, p.dout, p.dqkv})
             ? 64 * kBackwardGroups
             : 0;
}

Status attention_sm90(Context& context, const AttentionForwardArgs& args, const Dim& grid) {
  const AttentionParams& op = args.op;
  const ForwardInstance& instance = *instance_for(kForward, op.D);
  AttentionForwardSm90Params p{};
  p.op = op, p.plan = args.plan;
  const Status status = map_rows(context, op.qkv, op.T, op.Hq + 2 * op.Hkv, op.D, &p.qkv);
  if (!status.ok) return status;
  const int64_t bytes =
      tile_bytes(64 * instance.groups + 2 * instance.stages * instance.keys, instance.D) + kForwardMore + kAlignment;
  return context.launch(kernel(kForwardKernel, instance.D),
                        {grid, 128 * (1 + static_cast<unsigned>(instance.groups)), static_cast<unsigned>(bytes)}, p);
}

Status attention_backward_sm90(Context& context, const AttentionBackwardArgs& args, const Dim& query_grid,
                               const Dim& key_grid) {
  const AttentionBackwardParams& op = args.op;
  const BackwardInstance& instance = *instance_for(kBackward, op.D);
  AttentionBackwardSm90Params p{};
  p.op = op, p.plan = args.plan, p.rows = args.rows;
  Status status = map_rows(context, op.qkv, op.T, op.Hq + 2 * op.Hkv, op.D, &p.qkv);
  if (status.ok) status = map_rows(context, op.dout, op.T, op.Hq, op.D, &p.dout);
  if (!status.ok) return status;
  const int64_t bytes =
      tile_bytes(2 * (64 * kBackwardGroups + instance.stages * kBackwardStep), instance.D) + kBackwardMore + kAlignment;
  const auto threads = static_cast<unsigned>(128 * (1 + kBackwardGroups)), shared = static_cast<unsigned>(bytes);
  status = context.launch(kernel(kKeyKernel, instance.D), {key_grid, threads, shared}, p);
  if (status.ok) status = context.launch(kernel(kQueryKernel, instance.D), {query_grid, threads, shared}, p);
  return status;
}

}  // namespace westwind::cuda
