#include "params/optimizer.h"

#include <math.h>
#include <string.h>

#include <vector>

#include "names.h"
#include "ops.h"

namespace westwind::cuda {
namespace {

// starts[i] = pieces before tensor i; starts[count] = all pieces.
template <class Size>
std::vector<int64_t> cut_into_pieces(int32_t count, int64_t piece, const Size& size) {
  std::vector<int64_t> starts(static_cast<size_t>(count) + 1);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) starts[i + 1] = starts[i] + (size(i) + piece - 1) / piece;
  return starts;
}

// Lists of 8-byte things, one behind the other as they shall lie in working memory.
class Lists {
 public:
  // Returns where in working memory the list begins, in bytes.
  template <class T>
  size_t add(const T* list, size_t n) {
    static_assert(sizeof(T) % 8 == 0);
    const size_t at = words_.size();
    words_.resize(at + n * (sizeof(T) / 8));
    memcpy(words_.data() + at, list, n * sizeof(T));
    return at * 8;
  }
  int64_t bytes() const { return static_cast<int64_t>(words_.size()) * 8; }
  // Copies them to the front of working memory that has room for `more` bytes behind them.
  Status send(Context& context, int64_t more, char** memory) const {
    const Status status = context.workspace(bytes() + more, memory);
    if (!status.ok) return status;
    return context.copy_in(*memory, words_.data(), bytes());
  }

 private:
  std::vector<uint64_t> words_;
};

// decay(tensor): the factor that the kernel takes for its weight decay.
template <class Decay>
Status update(Context& context, const char* op, const OptimizerParams& p, UpdateLaunch launch, const Decay& decay) {
  const auto starts = cut_into_pieces(p.count, kUpdatePiece, [&](size_t i) { return p.tensors[i].n; });
  if (starts.back() == 0) return {};
  std::vector<OptimizerTensor> tensors(p.tensors, p.tensors + p.count);
  for (OptimizerTensor& t : tensors) t.weight_decay = decay(t.weight_decay);
  Lists lists;
  const size_t at_tensors = lists.add(tensors.data(), tensors.size());
  const size_t at_starts = lists.add(starts.data(), starts.size());
  char* memory = nullptr;
  const Status status = lists.send(context, 0, &memory);
  if (!status.ok) return status;
  launch.tensors = reinterpret_cast<const OptimizerTensor*>(memory + at_tensors);
  launch.starts = reinterpret_cast<const int64_t*>(memory + at_starts);
  launch.count = p.count;
  launch.grad_scale = p.grad_scale;
  launch.keep = static_cast<float>(p.beta2);
  launch.add = static_cast<float>(1 - p.beta2);
  launch.eps = static_cast<float>(p.eps);
  return context.launch(op, {{static_cast<unsigned>(starts.back())}, 256}, launch);
}

constexpr const char *kAdamW = "adamw", *kRmsProp = "rmsprop";
constexpr const char *kPieces = "sum_squares_pieces", *kSumSquares = "sum_squares";

}  // namespace

void add_optimizer_names(Names& out) { out.insert(out.end(), {kAdamW, kRmsProp, kPieces, kSumSquares}); }

Status adamw(Context& context, const OptimizerParams& p) {
  UpdateLaunch launch{};
  launch.add_first = static_cast<float>(1 - p.beta1);
  launch.step = static_cast<float>(-p.lr / p.bias1);
  launch.root_bias2 = static_cast<float>(sqrt(p.bias2));
  return update(context, kAdamW, p, launch, [&](float decay) { return static_cast<float>(1 - p.lr * decay); });
}

Status rmsprop(Context& context, const OptimizerParams& p) {
  UpdateLaunch launch{};
  launch.step = static_cast<float>(-p.lr);
  return update(context, kRmsProp, p, launch, [](float decay) { return decay; });
}

Status sum_squares(Context& context, const SumSquaresParams& p) {
  if (p.count == 0) return {};
  const auto starts = cut_into_pieces(p.count, kSquaresPiece, [&](size_t i) { return p.sizes[i]; });
  Lists lists;
  const auto count = static_cast<size_t>(p.count);
  const size_t at_tensors = lists.add(p.tensors, count), at_sizes = lists.add(p.sizes, count);
  const size_t at_starts = lists.add(starts.data(), starts.size());
  char* memory = nullptr;
  Status status = lists.send(context, starts.back() * 8, &memory);
  if (!status.ok) return status;
  const SquaresLaunch launch{reinterpret_cast<const float* const*>(memory + at_tensors),
                             reinterpret_cast<const int64_t*>(memory + at_sizes),
                             reinterpret_cast<const int64_t*>(memory + at_starts),
                             reinterpret_cast<double*>(memory + lists.bytes()),
                             p.out,
                             p.count};
  if (starts.back() > 0) status = context.launch(kPieces, {{static_cast<unsigned>(starts.back())}, 256}, launch);
  if (!status.ok) return status;
  return context.launch(kSumSquares, {{static_cast<unsigned>(p.count)}, 256}, launch);
}

}  // namespace westwind::cuda
