// Cuts a packed row into tiles for the attention kernels: params/attention_plan.h. One block, for the lists are short
// (a tile per 16 to 128 rows); limited by latency, a few microseconds. Every list is the same again for the same
// segments.
#include "common/fault.cuh"
#include "params/attention_plan.h"

using namespace westwind;

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBuckets = 1024;  // by weight, so that heavy tiles come first

// The exclusive sum of x over the block in *before; returns the sum of all. `sums`: [kWarps] of shared memory.
__device__ int block_scan(int x, int* sums, int* before) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = x;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();  // the sums of the call before have been read
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  static_assert(kWarps == 32, "a lane for each warp");
  const int of_warp = sums[lane];
  *before = static_cast<int>(__reduce_add_sync(~0u, lane < warp ? of_warp : 0)) + sum - x;
  return __reduce_add_sync(~0u, of_warp);
}

// first[i] = the sum of count(0 .. i−1), i = 0 .. n; returns first[n].
template <class Count>
__device__ int scan_to(int32_t* first, int n, int* sums, const Count& count) {
  int done = 0;
  for (int base = 0; base < n; base += kThreads) {
    const int i = base + threadIdx.x;
    int before;
    const int total = block_scan(i < n ? count(i) : 0, sums, &before);
    if (i < n) first[i] = done + before;
    done += total;
  }
  if (threadIdx.x == 0) first[n] = done;
  return done;
}

// The first thing that is wrong, in the order in which the CPU looks: smaller is earlier.
__device__ void test_segments(const AttentionPlanParams& p, unsigned long long* worst) {
  const Segments& g = p.segments;
  const auto found = [&](uint64_t place) { atomicMin(worst, static_cast<unsigned long long>(place)); };
  if (threadIdx.x == 0 && g.start[0] != 0) found(0);
  const int32_t least_prefix = p.keys == nullptr ? kKeysOnly : -1;  // every segment of a backward pass has queries
  for (int64_t s = threadIdx.x; s < g.S; s += kThreads) {
    if (g.start[s + 1] < g.start[s])
      found(1 + 2 * s);
    else if (g.prefix[s] < least_prefix || g.prefix[s] >= s)
      found(2 + 2 * s);
  }
  const uint64_t S = static_cast<uint64_t>(g.S);
  if (threadIdx.x == 0 && g.start[S] != p.T) found(1 + 2 * S);
  if (p.ranges == nullptr) return;

  // Also the range of positions of each group of rows: two a lane.
  static_assert(kPositionRows == 64, "a warp reads two positions a lane");
  const int lane = threadIdx.x % 32;
  for (int64_t first = threadIdx.x / 32 * int64_t{kPositionRows}; first < p.T; first += kWarps * kPositionRows) {
    int low = INT32_MAX, high = INT32_MIN;
    for (int64_t t = first + lane; t < first + kPositionRows && t < p.T; t += 32) {
      const int position = g.positions[t];
      if (position < 0) found(2 + 2 * S + static_cast<uint64_t>(t));
      low = min(low, position), high = max(high, position);
    }
    low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
    if (lane == 0) p.ranges[first / kPositionRows] = {low, high};
  }
}

// By one thread.
__device__ void report_segments(const AttentionPlanParams& p, uint64_t place) {
  const Segments& g = p.segments;
  const uint64_t S = static_cast<uint64_t>(g.S);
  const auto tell = [&](AttentionFault kind, uint64_t index, int32_t value) {
    report(p.fault, p.fault_number + kind, index, value);
  };
  if (place == 0)
    tell(kFaultStart, 0, g.start[0]);
  else if (place == 1 + 2 * S)
    tell(kFaultEnd, S, g.start[S]);
  else if (place >= 2 + 2 * S)
    tell(kFaultPosition, place - 2 - 2 * S, g.positions[place - 2 - 2 * S]);
  else if (place % 2 == 1)
    tell(kFaultAscend, (place - 1) / 2 + 1, g.start[(place - 1) / 2 + 1]);
  else
    tell(kFaultPrefix, (place - 2) / 2, g.prefix[(place - 2) / 2]);
}

// One of the two lists: tiles of `tile_rows` rows; kKeys: weighed by the queries that see them, else by their keys.
template <bool kKeys>
struct List {
  const AttentionPlanParams& p;
  const int32_t* first;  // [S+1]
  int tile_rows, count;

  __device__ AttentionTile tile(int i) const {
    const Segments& g = p.segments;
    int s = 0, above = g.S;  // the last segment whose first tile is not after i
    while (above - s > 1) {
      const int middle = s + (above - s) / 2;
      (first[middle] <= i ? s : above) = middle;
    }
    AttentionTile t;
    t.segment = s;
    t.start = g.start[s], t.end = g.start[s + 1];
    t.first = t.start + (i - first[s]) * tile_rows;
    t.rows = min(tile_rows, t.end - t.first);
    const int prefix = g.prefix[s];
    t.prefix_first = prefix < 0 ? 0 : g.start[prefix];
    t.prefix_rows = prefix < 0 ? 0 : g.start[prefix + 1] - t.prefix_first;
    t.weight = kKeys ? t.end - t.first + p.child_rows[s] : t.prefix_rows + t.first - t.start + t.rows;
    if (g.window > 0 && g.window <= t.weight - t.rows) t.weight = g.window + t.rows;
    return t;
  }
};

// Sorts a list, heavy tiles first, equal ones in the order of the row: a counting sort over classes of weight.
// `cursor`: [kBuckets] of shared memory, 0.
template <bool kKeys>
__device__ void write_list(const List<kKeys>& list, int32_t* rank, AttentionTile* tiles, int* cursor, int* sums) {
  const int64_t unit = list.p.T / (kBuckets - 1) + 1;
  for (int i = threadIdx.x; i < list.count; i += kThreads) {
    const int bucket = kBuckets - 1 - static_cast<int>(min(int64_t{list.tile(i).weight} / unit, int64_t{kBuckets - 1}));
    rank[i] = bucket;
    atomicAdd(cursor + bucket, 1);
  }
  static_assert(kBuckets == kThreads, "a thread for each class");
  int before;
  __syncthreads();
  block_scan(cursor[threadIdx.x], sums, &before);
  __syncthreads();
  cursor[threadIdx.x] = before;
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int i = threadIdx.x; i - static_cast<int>(threadIdx.x) < list.count; i += 32) {
      const bool in = i < list.count;
      const int bucket = in ? rank[i] : kBuckets;
      const unsigned same = __match_any_sync(~0u, bucket);
      const int place = in ? cursor[bucket] + __popc(same & ((1u << threadIdx.x) - 1)) : 0;
      __syncwarp();
      if (in) {
        rank[i] = place;
        if (__ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x)) cursor[bucket] += __popc(same);
      }
      __syncwarp();
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < list.count; i += kThreads) tiles[rank[i]] = list.tile(i);
  cursor[threadIdx.x] = 0;
  __syncthreads();
}

// children and child_first; child_rows holds the number of children in between.
__device__ void find_children(const AttentionPlanParams& p, int* sums) {
  const Segments& g = p.segments;
  for (int s = threadIdx.x; s < g.S; s += kThreads) p.child_rows[s] = 0;
  __syncthreads();
  for (int s = threadIdx.x; s < g.S; s += kThreads)
    if (g.prefix[s] >= 0) atomicAdd(p.child_rows + g.prefix[s], 1);
  __syncthreads();
  scan_to(p.child_first, g.S, sums, [&](int s) { return p.child_rows[s]; });
  for (int s = threadIdx.x; s < g.S; s += kThreads) p.child_rows[s] = 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int s = threadIdx.x; s - static_cast<int>(threadIdx.x) < g.S; s += 32) {
      const int prefix = s < g.S ? g.prefix[s] : -1;
      const unsigned same = __match_any_sync(~0u, prefix);
      const int known = prefix >= 0 ? p.child_rows[prefix] : 0;
      __syncwarp();
      if (prefix >= 0) {
        p.children[p.child_first[prefix] + known + __popc(same & ((1u << threadIdx.x) - 1))] = s;
        if (__ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x))
          p.child_rows[prefix] = known + __popc(same);
      }
      __syncwarp();
    }
  }
  __syncthreads();
  for (int s = threadIdx.x; s < g.S; s += kThreads) p.child_rows[s] = 0;
  __syncthreads();
  for (int s = threadIdx.x; s < g.S; s += kThreads)
    if (g.prefix[s] >= 0) atomicAdd(p.child_rows + g.prefix[s], g.start[s + 1] - g.start[s]);
  __syncthreads();
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) attention_plan(const __grid_constant__ AttentionPlanParams p) {
  __shared__ unsigned long long worst;
  __shared__ int cursor[kBuckets];
  __shared__ int sums[kWarps];
  const Segments& g = p.segments;
  const bool faulty_before = faulty(p.fault);
  cursor[threadIdx.x] = 0;
  if (threadIdx.x == 0) worst = faulty_before ? 0 : kNoPlace;
  __syncthreads();
  if (!faulty_before) test_segments(p, &worst);
  __syncthreads();
  if (worst != kNoPlace) {
    if (threadIdx.x != 0) return;
    if (!faulty_before) report_segments(p, worst);
    p.counts[0] = p.counts[1] = 0;
    return;
  }

  const auto tiles_of = [&](int s, int rows) {
    const int length = g.start[s + 1] - g.start[s];
    return length / rows + (length % rows != 0);
  };
  const auto query_tiles_of = [&](int s) { return g.prefix[s] == kKeysOnly ? 0 : tiles_of(s, p.query_rows); };
  const List<false> queries{p, p.first_tile, p.query_rows, scan_to(p.first_tile, g.S, sums, query_tiles_of)};
  if (threadIdx.x == 0) p.counts[0] = queries.count, p.counts[1] = 0;
  __syncthreads();
  write_list(queries, p.rank, p.queries, cursor, sums);
  if (p.keys == nullptr) return;

  find_children(p, sums);
  int32_t* first_tile = p.first_tile + g.S + 1;
  const List<true> keys{p, first_tile, p.key_rows,
                        scan_to(first_tile, g.S, sums, [&](int s) { return tiles_of(s, p.key_rows); })};
  if (threadIdx.x == 0) p.counts[1] = keys.count;
  __syncthreads();
  write_list(keys, p.rank + p.most_query_tiles, p.keys, cursor, sums);
}
