// What a device can do: memory, copies, and one function per op. Ops and copies are called from the device's one stream
// thread only; allocate and release from any thread. Contracts: ops/<op>.h.
#pragma once
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
  op(decode_attention, DecodeAttentionParams)          \
  op(sample, SampleParams)
// clang-format on

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void start_stream_thread() = 0;     // called once, on the stream thread, before any op
  virtual void* allocate(int64_t bytes) = 0;  // null: out of memory
  virtual void release(void* memory, int64_t bytes) = 0;
  virtual int64_t capacity() const = 0;  // bytes the device has in all
  virtual Status copy_in(void* to, const void* host, int64_t bytes) = 0;
  virtual Status copy_out(void* host, const void* from, int64_t bytes) = 0;
  virtual Status wait() = 0;  // until all enqueued work of the device is done
#define WESTWIND_DECLARE(name, Params) virtual Status name(const Params& p) = 0;
  WESTWIND_OPS(WESTWIND_DECLARE)
#undef WESTWIND_DECLARE
};

}  // namespace westwind
