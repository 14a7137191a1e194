#include "attention_plan.h"

#include <string>

#include "names.h"

namespace westwind::cuda {
namespace {

constexpr unsigned kPlanThreads = 1024;
constexpr const char* kPlan = "attention_plan";

// Hands out parts of the workspace: first to count its bytes, then in earnest.
class Parts {
 public:
  explicit Parts(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t n) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (n * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return part;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

// Tiles that rows can be cut into when every segment begins a new one.
int64_t most_tiles(int64_t T, int32_t S, int32_t rows) { return rows == 0 ? 0 : T / rows + (S < T ? S : T); }

void lay_out(void* base, const AttentionCut& cut, int64_t more_bytes, AttentionPlanParams* p, void** more,
             int64_t* bytes) {
  Parts parts(base);
  const int64_t S = p->segments.S;
  const int64_t query_tiles = most_tiles(p->T, p->segments.S, cut.query_rows);
  const int64_t key_tiles = most_tiles(p->T, p->segments.S, cut.key_rows);
  const bool keys = cut.key_rows > 0;
  *more = parts.take<char>(more_bytes);
  p->queries = parts.take<AttentionTile>(query_tiles);
  p->keys = keys ? parts.take<AttentionTile>(key_tiles) : nullptr;
  p->counts = parts.take<int32_t>(2);
  p->first_tile = parts.take<int32_t>(2 * (S + 1));
  p->rank = parts.take<int32_t>(query_tiles + key_tiles);
  p->child_rows = keys ? parts.take<int32_t>(S) : nullptr;
  p->child_first = keys ? parts.take<int32_t>(S + 1) : nullptr;
  p->children = keys ? parts.take<int32_t>(S) : nullptr;
  p->ranges = p->segments.window > 0 ? parts.take<PositionRange>((p->T + kPositionRows - 1) / kPositionRows) : nullptr;
  *bytes = parts.bytes();
}

}  // namespace

void add_attention_plan_names(Names& out) { out.push_back(kPlan); }

Status plan_attention(Context& context, const char* op, const Segments& segments, int64_t T, const AttentionCut& cut,
                      int64_t more_bytes, AttentionPlanned* out) {
  const int64_t most = most_tiles(T, segments.S, cut.query_rows) + most_tiles(T, segments.S, cut.key_rows);
  if (T > INT32_MAX || most > INT32_MAX)
    return fail("%s: a row may have 2^31 tokens at most, got T=%lld", op, static_cast<long long>(T));
  AttentionPlanParams p{};
  p.segments = segments, p.T = T, p.fault = context.fault();
  p.query_rows = cut.query_rows, p.key_rows = cut.key_rows;
  p.most_query_tiles = static_cast<int32_t>(most_tiles(T, segments.S, cut.query_rows));
  int64_t bytes = 0;
  lay_out(nullptr, cut, more_bytes, &p, &out->more, &bytes);
  void* memory = nullptr;
  const Status status = context.workspace(bytes, &memory);
  if (!status.ok) return status;
  lay_out(memory, cut, more_bytes, &p, &out->more, &bytes);

  // In the order of AttentionFault, and in the words of the CPU.
  p.fault_number =
      context.expect_faults(op, {"segStart must begin with 0", "segStart must ascend",
                                 cut.key_rows == 0 ? "segPrefix must be -2, -1 or an earlier segment"
                                                   : "segPrefix must be -1 or an earlier segment",
                                 "segStart must end with T=" + std::to_string(T), "positions must be >= 0"});
  out->plan = {p.counts, p.queries, p.keys, p.child_first, p.children, p.ranges};
  out->query_tiles = p.most_query_tiles;
  out->key_tiles = static_cast<int32_t>(most_tiles(T, segments.S, cut.key_rows));
  return context.launch(kPlan, {{1}, kPlanThreads}, p);
}

}  // namespace westwind::cuda
