// Generation: a cache of keys and values in slots, attention of new tokens over it, and the choice of the next token.
//
//   kv_append:        k_cache[slot[t], position[t]] = k of row t, the same for v
//   kv_gather:        the other way: k and v of row t = those at [slot[t], position[t]]; q is left as it is
//   decode_attention: row t sees cache entries 0 .. position[t] of its slot, those with position[t] − j < window
//   sample:           greedy (first of equals) where temperature is 0; else softmax(logits / temperature) cut to the
//   top_k most
//                     likely (0: all), then to the smallest set whose mass reaches top_p (ties by lower id), then the
//                     inverse CDF at uniform[b], tokens in ascending id. Sums in f64.
#pragma once
#include "../dtype.h"

namespace westwind {

struct KvAppendParams {
  const void* qkv;          // [T, Hq + 2·Hkv, D], rope applied
  void* k_cache;            // [slots, length, Hkv, D]
  void* v_cache;            // [slots, length, Hkv, D]
  const int32_t* slot;      // [T]
  const int32_t* position;  // [T], the place in the cache
  int64_t T, slots, length;
  int32_t Hq, Hkv, D;
  DType dtype;
};

struct KvGatherParams {
  void* qkv;  // [T, Hq + 2·Hkv, D]; its k and v are written
  const void* k_cache;
  const void* v_cache;
  const int32_t* slot;      // [T]
  const int32_t* position;  // [T]
  int64_t T, slots, length;
  int32_t Hq, Hkv, D;
  DType dtype;
};

struct DecodeAttentionParams {
  const void* qkv;      // [T, Hq + 2·Hkv, D]; only q is read
  const void* k_cache;  // [slots, length, Hkv, D]
  const void* v_cache;
  const int32_t* slot;      // [T]
  const int32_t* position;  // [T]
  void* out;                // [T, Hq, D]
  int64_t T, slots, length;
  int32_t Hq, Hkv, D, window;
  float scale;
  DType dtype;
};

struct SampleParams {
  const void* logits;    // [B, V]
  const float* uniform;  // [B], in [0, 1)
  int32_t* out;          // [B]
  int64_t B, V;
  float temperature, top_p;
  int32_t top_k;
  DType dtype;
};

}  // namespace westwind
