// What the kernels of decode_attention share: which keys a row sees, and where its results go.
#pragma once
#include "fault.cuh"
#include "params/decode.h"

namespace westwind {

constexpr float kLog2E = 1.4426950408889634f;

// Whether row t names a place in the cache; tells where it does not.
__device__ __forceinline__ bool row_is_in_cache(const DecodeLaunch& w, int64_t t) {
  const int32_t slot = w.p.slot[t], position = w.p.position[t];
  const bool slot_ok = slot >= 0 && slot < w.p.slots, position_ok = position >= 0 && position < w.p.length;
  if (!slot_ok)
    report(w.fault, w.slot_fault, static_cast<uint64_t>(t), slot);
  else if (!position_ok)
    report(w.fault, w.position_fault, static_cast<uint64_t>(t), position);
  return slot_ok && position_ok;
}

// The first key that a row at `position` sees.
__device__ __forceinline__ int32_t oldest_key(const DecodeAttentionParams& p, int32_t position) {
  return p.window > 0 && position >= p.window ? position - p.window + 1 : 0;
}

// e^(a − b) of numbers in units of log 2, where b is at least a; 0 of −inf, even where b is −inf too.
__device__ __forceinline__ float weight_of(float a, float b) { return a == -INFINITY ? 0.f : exp2f(a - b); }

// Index of (row t, chunk, query head) in the partial results.
__device__ __forceinline__ int64_t partial_index(const DecodeLaunch& w, int64_t t, int32_t chunk, int32_t head) {
  return ((t - w.first_row) * w.chunks + chunk) * w.p.Hq + head;
}

}  // namespace westwind
