// What a device can do: memory, copies, and one function per op. Ops and copies are called from the device's one stream
// thread only; allocate and release from any thread. Contracts: ops/<op>.h.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/decode.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/linear_logps.h"
#include "ops/optimizer.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/swiglu.h"
#include "ops/token_logps.h"
#include "status.h"

namespace westwind {

// Every op of a backend, once: declarations and dispatch are written from this list.
// clang-format off
#define WESTWIND_OPS(op)                               \
  op(gemm, GemmParams)                                 \
  op(rms_norm, RmsNormParams)                          \
  op(rms_norm_backward, RmsNormBackwardParams)         \
  op(rope, RopeParams)                                 \
  op(attention, AttentionParams)                       \
  op(attention_backward, AttentionBackwardParams)      \
  op(swiglu, SwigluParams)                             \
  op(swiglu_backward, SwigluBackwardParams)            \
  op(embedding, EmbeddingParams)                       \
  op(embedding_backward, EmbeddingBackwardParams)      \
  op(scatter_add_rows, ScatterAddRowsParams)           \
  op(token_logps, TokenLogpsParams)                    \
  op(token_logps_backward, TokenLogpsBackwardParams)   \
  op(linear_logps, LinearLogpsParams)                  \
  op(linear_logps_backward, LinearLogpsBackwardParams) \
  op(adamw, OptimizerParams)                           \
  op(rmsprop, OptimizerParams)                         \
  op(sum_squares, SumSquaresParams)                    \
  op(fill, FillParams)                                 \
  op(scale, ScaleParams)                               \
  op(add, AddParams)                                   \
  op(cast, CastParams)                                 \
  op(kv_append, KvAppendParams)                        \
  op(kv_gather, KvGatherParams)                        \
  op(decode_attention, DecodeAttentionParams)          \
  op(sample, SampleParams)
// clang-format on

// What a device computes with.
struct Facts {
  std::string kind;   // the instruction set: avx2, sm_90
  int64_t units = 0;  // threads of a CPU, multiprocessors of a GPU
  std::string name;   // of the product; empty for the CPU
};

class Backend;

// Ops that were enqueued once, with their names for errors, to be run again as they are.
struct RecordedJob {
  std::string label;
  std::function<Status(Backend&)> work;
};
using RecordedJobs = std::vector<RecordedJob>;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Facts facts() const = 0;
  virtual void start_stream_thread() = 0;                  // called once, on the stream thread, before any op
  virtual Status allocate(int64_t bytes, void** out) = 0;  // null: no room; another failure is a broken device
  virtual void release(void* memory, int64_t bytes) = 0;
  virtual int64_t capacity() const = 0;         // bytes the device has in all
  virtual int64_t workspace_bytes() const = 0;  // working memory of the ops, beside what allocate() gave
  // What an op calls, on the stream thread, when its working memory finds no room, before it tries once more.
  virtual void on_no_room(std::function<void()>) {}
  virtual Status copy_in(void* to, const void* host, int64_t bytes) = 0;
  virtual Status copy_out(void* host, const void* from, int64_t bytes) = 0;
  virtual Status wait() = 0;  // until all enqueued work of the device is done
  // The device's own clock: notes the moment when all work before is done, as mark 0 or 1; then what lies between them.
  virtual Status mark(int which) = 0;
  virtual Status between_marks(double* ms) = 0;  // waits
  // Runs the jobs again; each has run before. A backend may keep in `compiled` what makes the next time quicker.
  virtual Status run_again(const RecordedJobs& jobs, std::shared_ptr<void>& compiled);
#define WESTWIND_DECLARE(name, Params) virtual Status name(const Params& p) = 0;
  WESTWIND_OPS(WESTWIND_DECLARE)
#undef WESTWIND_DECLARE
};

}  // namespace westwind
