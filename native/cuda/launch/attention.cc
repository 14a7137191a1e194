#include "params/attention.h"

#include <stdint.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "attention_plan.h"
#include "attention_sm90.h"
#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

constexpr int64_t kDeltaRows = 32;
constexpr unsigned kDeltaThreads = 256;

constexpr const char *kForward = "attention_fwd", *kDelta = "attention_bwd_delta", *kQueries = "attention_bwd_dq";
// At 256 the sums of dK and dV together do not fit the registers: two kernels.
std::vector<const char*> key_passes(int instance) {
  if (instance == 256) return {"attention_bwd_dv", "attention_bwd_dk"};
  return {"attention_bwd_dkv"};
}

// Head dimensions of the tensor-core kernels; 0 stands for the simple ones, which take any.
constexpr int kInstances[] = {16, 32, 64, 96, 128, 256};
std::string kernel(const char* pass, DType dtype, int instance) {
  return kernel_of(pass, dtype, instance == 0 ? "" : "_d" + std::to_string(instance));
}

bool aligned(std::initializer_list<const void*> tensors) {
  for (const void* tensor : tensors)
    if (reinterpret_cast<uintptr_t>(tensor) % 16 != 0) return false;
  return true;
}

// The head dimension of the tensor-core kernel that takes this one; 0: none does. Their softmax takes the scale out of
// the maximum, so it must be positive, and a row of the tensor must be less than 2^31 bytes.
int instance_for(DType dtype, int32_t Hq, int32_t Hkv, int32_t D, float scale, bool aligned) {
  if (dtype != DType::kBf16 || D % 8 != 0 || !aligned || !(scale > 0)) return 0;
  if ((Hq + 2 * int64_t{Hkv}) * D * 2 > INT32_MAX) return 0;
  for (const int d : kInstances)
    if (D <= d) return d;
  return 0;
}

Status check_heads(const char* op, int64_t T, int32_t Hq, int32_t Hkv, int32_t D) {
  if (T < 0 || Hq <= 0 || Hkv <= 0 || D <= 0 || Hq % Hkv != 0)
    return fail("%s: expected T >= 0, D >= 1 and Hq a multiple of Hkv, got T=%lld Hq=%d Hkv=%d D=%d", op,
                static_cast<long long>(T), Hq, Hkv, D);
  return {};
}

// How many blocks, each for one tile and one head.
Status grid_of(const char* op, int64_t tiles, int64_t heads, Dim* grid) {
  if (tiles * heads > INT32_MAX)
    return fail("%s: too large for one launch: %lld tiles of %lld heads", op, static_cast<long long>(tiles),
                static_cast<long long>(heads));
  *grid = {static_cast<unsigned>(tiles * heads)};
  return {};
}

// The simple kernels keep `rows_in_shared` rows of D floats a warp; 0 warps: not even one fits.
int simple_warps(const Context& context, int32_t D, int rows_in_shared) {
  for (const int warps : {kAttentionSimpleRows, 1})
    if (int64_t{4} * D * rows_in_shared * warps <= context.facts().shared_bytes) return warps;
  return 0;
}

Status too_wide(const char* op, int32_t D) { return fail("%s: D is too large for the GPU's shared memory: %d", op, D); }

void add_instance(Names& out, DType dtype, int instance) {
  for (const char* pass : {kForward, kQueries}) out.push_back(kernel(pass, dtype, instance));
  for (const char* pass : key_passes(instance)) out.push_back(kernel(pass, dtype, instance));
}

}  // namespace

void add_attention_names(Names& out) {
  for (const DType dtype : kFloats) {
    out.push_back(kernel_of(kDelta, dtype));
    add_instance(out, dtype, 0);
  }
  for (const int instance : kInstances) add_instance(out, DType::kBf16, instance);
}

Status attention(Context& context, const AttentionParams& p) {
  const char* op = "attention";
  Status status = check_heads(op, p.T, p.Hq, p.Hkv, p.D);
  if (!status.ok) return status;
  const int instance = instance_for(p.dtype, p.Hq, p.Hkv, p.D, p.scale, aligned({p.qkv, p.out}));
  const int warps = simple_warps(context, p.D, 2);
  if (instance == 0 && warps == 0) return too_wide(op, p.D);

  const int32_t sm90 = attention_sm90_rows(context, p);
  const AttentionCut cut{sm90 != 0 ? sm90 : instance == 0 ? warps : attention_forward_shape(instance).rows};
  AttentionPlanned planned{};
  status = plan_attention(context, op, p.segments, p.T, cut, 0, &planned);
  if (!status.ok || p.T == 0) return status;
  const AttentionForwardArgs args{p, planned.plan};
  Dim grid;
  status = grid_of(op, planned.query_tiles, p.Hq, &grid);
  if (!status.ok) return status;
  if (sm90 != 0) return attention_sm90(context, args, grid);
  const std::string name = kernel(kForward, p.dtype, instance);
  if (instance == 0)
    return context.launch(name, {grid, static_cast<unsigned>(32 * warps), static_cast<unsigned>(4 * 2 * p.D * warps)},
                          args);
  return context.launch(
      name, {grid, kAttentionThreads, static_cast<unsigned>(attention_forward_shared_bytes(instance))}, args);
}

Status attention_backward(Context& context, const AttentionBackwardParams& p) {
  const char* op = "attention_backward";
  Status status = check_heads(op, p.T, p.Hq, p.Hkv, p.D);
  if (!status.ok) return status;
  const int instance = instance_for(p.dtype, p.Hq, p.Hkv, p.D, p.scale, aligned({p.qkv, p.out, p.dout, p.dqkv}));
  const int warps = simple_warps(context, p.D, 4);
  if (instance == 0 && warps == 0) return too_wide(op, p.D);

  const int32_t sm90 = attention_backward_sm90_rows(context, p);
  const auto rows = [&](AttentionShape shape) { return sm90 != 0 ? sm90 : instance == 0 ? warps : shape.rows; };
  const AttentionCut cut{rows(attention_dq_shape(instance)), rows(attention_dkv_shape(instance))};
  AttentionPlanned planned{};
  const int64_t more_bytes = p.T * p.Hq * static_cast<int64_t>(sizeof(AttentionRow));
  status = plan_attention(context, op, p.segments, p.T, cut, more_bytes, &planned);
  if (!status.ok || p.T == 0) return status;
  const AttentionBackwardArgs args{p, planned.plan, static_cast<AttentionRow*>(planned.more)};
  Dim delta_grid, query_grid, key_grid;
  status = grid_of(op, (p.T + kDeltaRows - 1) / kDeltaRows, p.Hq, &delta_grid);
  if (status.ok) status = grid_of(op, planned.query_tiles, p.Hq, &query_grid);
  if (status.ok) status = grid_of(op, planned.key_tiles, p.Hkv, &key_grid);
  if (status.ok) status = context.launch(kernel_of(kDelta, p.dtype), {delta_grid, kDeltaThreads}, args);
  if (!status.ok) return status;
  if (sm90 != 0) return attention_backward_sm90(context, args, query_grid, key_grid);

  Launch keys{}, queries{};
  if (instance == 0) {
    const auto threads = static_cast<unsigned>(32 * warps);
    const auto row_bytes = static_cast<unsigned>(4 * p.D * warps);
    keys = {key_grid, threads, 4 * row_bytes};
    queries = {query_grid, threads, 3 * row_bytes};
  } else {
    keys = {key_grid, kAttentionThreads, static_cast<unsigned>(attention_dkv_shared_bytes(instance))};
    queries = {query_grid, kAttentionThreads, static_cast<unsigned>(attention_dq_shared_bytes(instance))};
  }
  for (const char* pass : key_passes(instance))
    if (status.ok) status = context.launch(kernel(pass, p.dtype, instance), keys, args);
  if (status.ok) status = context.launch(kernel(kQueries, p.dtype, instance), queries, args);
  return status;
}

}  // namespace westwind::cuda
