// attention over segments: softmax(scale · q kᵀ) v for every token of a packed row, GQA, no T×T matrix in memory.
//
//   Segment s is rows start[s] .. start[s+1]-1. A query of segment s sees the keys of its own segment up to itself, and
//   every key of segment prefix[s] (an earlier segment; −1: none; −2, in forward alone: none, and its rows are keys of
//   later segments only: their q is not read, their out and lse are not written). With window > 0 a key is visible only
//   if positions[q] − positions[k] < window. Query head h uses KV head h / (Hq / Hkv). lse[h, t] = log Σ_k exp(scale ·
//   q·k). FlashAttention-2 (arXiv:2307.08691) structure.
#pragma once
#include "../dtype.h"

namespace westwind {

constexpr int32_t kKeysOnly = -2;

struct Segments {
  const int32_t* start;      // [S+1], ascending, start[0] = 0, start[S] = T
  const int32_t* prefix;     // [S], kKeysOnly, −1 or an earlier segment
  const int32_t* positions;  // [T], >= 0, consecutive inside a segment
  int32_t S;
  int32_t window;  // <= 0: none
};

struct AttentionParams {
  const void* qkv;  // [T, Hq + 2·Hkv, D]: q heads, then k heads, then v heads
  void* out;        // [T, Hq, D]
  float* lse;       // [Hq, T]
  Segments segments;
  int64_t T;
  int32_t Hq, Hkv, D;
  float scale;
  DType dtype;
};

struct AttentionBackwardParams {
  const void* dout;  // [T, Hq, D]
  const void* qkv;   // as in forward
  const void* out;   // [T, Hq, D]
  const float* lse;  // [Hq, T]
  void* dqkv;        // [T, Hq + 2·Hkv, D]; every element is written
  Segments segments;
  int64_t T;
  int32_t Hq, Hkv, D;
  float scale;
  DType dtype;
};

}  // namespace westwind
