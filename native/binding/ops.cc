// One short function per op: unwrap, check that memory is covered, enqueue. Arguments are positional;
// src/native/addon-types.ts has their names. Formulas and shapes: native/include/ops/<op>.h.
#include <memory>

#include "args.h"
#include "cuda_backend.h"

namespace westwind {
namespace {

using Info = Napi::CallbackInfo;

// The product of sizes, or a number no tensor has.
template <class... Sizes>
int64_t product(Sizes... sizes) {
  int64_t out = 1;
  for (const int64_t size : {static_cast<int64_t>(sizes)...}) {
    if (__builtin_mul_overflow(out, size, &out)) return INT64_MAX;
  }
  return out;
}

template <class Params>
void enqueue(const Args& args, const JobLabel& label, Status (Backend::*op)(const Params&), const Params& p) {
  args.device().stream.enqueue(label, [op, p](Backend& backend) { return (backend.*op)(p); });
}

// Elements that a strided matrix spans.
int64_t span(int64_t rows, int64_t columns, int64_t stride) {
  return rows == 0 || columns == 0 ? 0 : product(rows - 1, stride) + columns;
}

void require_float(Napi::Env env, const TensorRef& x) {
  if (x.dtype == DType::kI32) throw Napi::TypeError::New(env, "expected f32 or bf16");
}

GemmParams gemm_params(const Info& info, Args& args) {
  GemmParams p{};
  p.M = args.size(3), p.N = args.size(4), p.K = args.size(5);
  p.lda = args.size(6), p.ldb = args.size(7), p.ldc = args.size(8);
  p.trans_a = args.flag(9), p.trans_b = args.flag(10);
  p.alpha = static_cast<float>(args.number(11)), p.beta = static_cast<float>(args.number(12));
  const int64_t a_columns = p.trans_a ? p.M : p.K, b_columns = p.trans_b ? p.K : p.N;
  if (p.lda < a_columns || p.ldb < b_columns || p.ldc < p.N)
    throw Napi::RangeError::New(info.Env(), "a row stride is too small");
  const TensorRef a = args.tensor(0, span(p.trans_a ? p.K : p.M, a_columns, p.lda));
  const TensorRef b = args.tensor(1, span(p.trans_b ? p.N : p.K, b_columns, p.ldb));
  const TensorRef c = args.tensor(2, span(p.M, p.N, p.ldc));
  for (const TensorRef& x : {a, b, c}) require_float(info.Env(), x);
  p.a = a.data, p.b = b.data, p.c = c.data;
  p.a_type = a.dtype, p.b_type = b.dtype, p.c_type = c.dtype;
  return p;
}

// gemm(a, b, c, M, N, K, lda, ldb, ldc, transA, transB, alpha, beta)
void Gemm(const Info& info) {
  Args args(info);
  const GemmParams p = gemm_params(info, args);
  enqueue(args, {"gemm", {{"M", p.M}, {"N", p.N}, {"K", p.K}}}, &Backend::gemm, p);
}

// cublasLtGemm(...): the same, by NVIDIA's library; throws where the machine has none.
void CublasLtGemm(const Info& info) {
  const std::string missing = cublaslt_missing();
  if (!missing.empty()) throw Napi::Error::New(info.Env(), missing);
  Args args(info);
  const GemmParams p = gemm_params(info, args);
  args.device().stream.enqueue({"cublasLtGemm", {{"M", p.M}, {"N", p.N}, {"K", p.K}}},
                               [p](Backend& backend) { return cublaslt_gemm(backend, p); });
}

// rmsNorm(x, residual|null, weight, sum|null, y, rstd, T, C, eps)
void RmsNorm(const Info& info) {
  Args args(info);
  RmsNormParams p{};
  p.T = args.size(6), p.C = args.size(7), p.eps = static_cast<float>(args.number(8));
  const int64_t n = product(p.T, p.C);
  const TensorRef x = args.tensor(0, n);
  require_float(info.Env(), x);
  p.dtype = x.dtype;
  p.x = x.data;
  p.residual = args.optional(1, n, p.dtype).data;
  p.weight = args.tensor(2, p.C, p.dtype).data;
  p.sum = args.optional(3, n, p.dtype).data;
  p.y = args.tensor(4, n, p.dtype).data;
  p.rstd = args.tensor(5, p.T, DType::kF32).as<float>();
  if ((p.residual == nullptr) != (p.sum == nullptr))
    throw Napi::TypeError::New(info.Env(), "residual and sum go together");
  enqueue(args, {"rms_norm", {{"T", p.T}, {"C", p.C}}}, &Backend::rms_norm, p);
}

// rmsNormBackward(dy, s, weight, rstd, dresidual|null, dx, dweight, T, C)
void RmsNormBackward(const Info& info) {
  Args args(info);
  RmsNormBackwardParams p{};
  p.T = args.size(7), p.C = args.size(8);
  const int64_t n = product(p.T, p.C);
  const TensorRef dy = args.tensor(0, n);
  require_float(info.Env(), dy);
  p.dtype = dy.dtype;
  p.dy = dy.data;
  p.s = args.tensor(1, n, p.dtype).data;
  p.weight = args.tensor(2, p.C, p.dtype).data;
  p.rstd = args.tensor(3, p.T, DType::kF32).as<float>();
  p.dresidual = args.optional(4, n, p.dtype).data;
  p.dx = args.tensor(5, n, p.dtype).data;
  p.dweight = args.tensor(6, p.C, DType::kF32).as<float>();
  enqueue(args, {"rms_norm_backward", {{"T", p.T}, {"C", p.C}}}, &Backend::rms_norm_backward, p);
}

// rope(x, positions, T, heads, rowHeads, D, theta, sign)
void Rope(const Info& info) {
  Args args(info);
  RopeParams p{};
  p.T = args.size(2), p.heads = args.size32(3), p.row_heads = args.size32(4), p.D = args.size32(5);
  p.theta = args.number(6), p.sign = static_cast<float>(args.number(7));
  if (p.heads > p.row_heads || p.D % 2 != 0) throw Napi::RangeError::New(info.Env(), "heads <= rowHeads and even D");
  const TensorRef x = args.tensor(0, product(p.T, p.row_heads, p.D));
  require_float(info.Env(), x);
  p.x = x.data, p.dtype = x.dtype;
  p.positions = args.tensor(1, p.T, DType::kI32).as<int32_t>();
  enqueue(args, {"rope", {{"T", p.T}, {"H", p.heads}, {"D", p.D}}}, &Backend::rope, p);
}

Segments segments(Args& args, size_t first, int64_t T) {
  Segments s{};
  s.S = args.size32(first + 3), s.window = args.size32(first + 4);
  s.start = args.tensor(first, s.S + int64_t{1}, DType::kI32).as<int32_t>();
  s.prefix = args.tensor(first + 1, s.S, DType::kI32).as<int32_t>();
  s.positions = args.tensor(first + 2, T, DType::kI32).as<int32_t>();
  return s;
}

void check_heads(Napi::Env env, int32_t Hq, int32_t Hkv, int32_t D) {
  if (Hkv < 1 || Hq < 1 || Hq % Hkv != 0 || D < 1)
    throw Napi::RangeError::New(env, "Hq must be a multiple of Hkv, D >= 1");
}

// attention(qkv, out, lse, segStart, segPrefix, positions, S, window, T, Hq, Hkv, D, scale)
void Attention(const Info& info) {
  Args args(info);
  AttentionParams p{};
  p.T = args.size(8), p.Hq = args.size32(9), p.Hkv = args.size32(10), p.D = args.size32(11);
  p.scale = static_cast<float>(args.number(12));
  check_heads(info.Env(), p.Hq, p.Hkv, p.D);
  const TensorRef qkv = args.tensor(0, product(p.T, p.Hq + 2 * int64_t{p.Hkv}, p.D));
  require_float(info.Env(), qkv);
  p.qkv = qkv.data, p.dtype = qkv.dtype;
  p.out = args.tensor(1, product(p.T, p.Hq, p.D), p.dtype).data;
  p.lse = args.tensor(2, product(p.T, p.Hq), DType::kF32).as<float>();
  p.segments = segments(args, 3, p.T);
  enqueue(args, {"attention", {{"T", p.T}, {"Hq", p.Hq}, {"Hkv", p.Hkv}, {"D", p.D}}}, &Backend::attention, p);
}

// attentionBackward(dout, qkv, out, segStart, segPrefix, positions, S, window, lse, dqkv, T, Hq, Hkv, D, scale)
void AttentionBackward(const Info& info) {
  Args args(info);
  AttentionBackwardParams p{};
  p.T = args.size(10), p.Hq = args.size32(11), p.Hkv = args.size32(12), p.D = args.size32(13);
  p.scale = static_cast<float>(args.number(14));
  check_heads(info.Env(), p.Hq, p.Hkv, p.D);
  const int64_t q = product(p.T, p.Hq, p.D), all = product(p.T, p.Hq + 2 * int64_t{p.Hkv}, p.D);
  const TensorRef dout = args.tensor(0, q);
  require_float(info.Env(), dout);
  p.dout = dout.data, p.dtype = dout.dtype;
  p.qkv = args.tensor(1, all, p.dtype).data;
  p.out = args.tensor(2, q, p.dtype).data;
  p.segments = segments(args, 3, p.T);
  p.lse = args.tensor(8, product(p.T, p.Hq), DType::kF32).as<float>();
  p.dqkv = args.tensor(9, all, p.dtype).data;
  enqueue(args, {"attention_backward", {{"T", p.T}, {"Hq", p.Hq}, {"Hkv", p.Hkv}, {"D", p.D}}},
          &Backend::attention_backward, p);
}

// swiglu(gateUp, out, T, F)
void Swiglu(const Info& info) {
  Args args(info);
  SwigluParams p{};
  p.T = args.size(2), p.F = args.size(3);
  const TensorRef gate_up = args.tensor(0, product(p.T, p.F, 2));
  require_float(info.Env(), gate_up);
  p.gate_up = gate_up.data, p.dtype = gate_up.dtype;
  p.out = args.tensor(1, product(p.T, p.F), p.dtype).data;
  enqueue(args, {"swiglu", {{"T", p.T}, {"F", p.F}}}, &Backend::swiglu, p);
}

// swigluBackward(dout, gateUp, dgateUp, T, F)
void SwigluBackward(const Info& info) {
  Args args(info);
  SwigluBackwardParams p{};
  p.T = args.size(3), p.F = args.size(4);
  const TensorRef dout = args.tensor(0, product(p.T, p.F));
  require_float(info.Env(), dout);
  p.dout = dout.data, p.dtype = dout.dtype;
  p.gate_up = args.tensor(1, product(p.T, p.F, 2), p.dtype).data;
  p.dgate_up = args.tensor(2, product(p.T, p.F, 2), p.dtype).data;
  enqueue(args, {"swiglu_backward", {{"T", p.T}, {"F", p.F}}}, &Backend::swiglu_backward, p);
}

// embedding(table, ids, out, T, V, C)
void Embedding(const Info& info) {
  Args args(info);
  EmbeddingParams p{};
  p.T = args.size(3), p.V = args.size(4), p.C = args.size(5);
  const TensorRef table = args.tensor(0, product(p.V, p.C));
  require_float(info.Env(), table);
  p.table = table.data, p.dtype = table.dtype;
  p.ids = args.tensor(1, p.T, DType::kI32).as<int32_t>();
  p.out = args.tensor(2, product(p.T, p.C), p.dtype).data;
  enqueue(args, {"embedding", {{"T", p.T}, {"V", p.V}, {"C", p.C}}}, &Backend::embedding, p);
}

// embeddingBackward(dout, ids, dtable, T, V, C)
void EmbeddingBackward(const Info& info) {
  Args args(info);
  EmbeddingBackwardParams p{};
  p.T = args.size(3), p.V = args.size(4), p.C = args.size(5);
  const TensorRef dout = args.tensor(0, product(p.T, p.C));
  require_float(info.Env(), dout);
  p.dout = dout.data, p.dtype = dout.dtype;
  p.ids = args.tensor(1, p.T, DType::kI32).as<int32_t>();
  p.dtable = args.tensor(2, product(p.V, p.C), DType::kF32).as<float>();
  enqueue(args, {"embedding_backward", {{"T", p.T}, {"V", p.V}, {"C", p.C}}}, &Backend::embedding_backward, p);
}

// scatterAddRows(x, index, out, N, R, C)
void ScatterAddRows(const Info& info) {
  Args args(info);
  ScatterAddRowsParams p{};
  p.N = args.size(3), p.R = args.size(4), p.C = args.size(5);
  const TensorRef x = args.tensor(0, product(p.N, p.C));
  require_float(info.Env(), x);
  p.x = x.data, p.dtype = x.dtype;
  p.index = args.tensor(1, p.N, DType::kI32).as<int32_t>();
  p.out = args.tensor(2, product(p.R, p.C), p.dtype).data;
  enqueue(args, {"scatter_add_rows", {{"N", p.N}, {"R", p.R}, {"C", p.C}}}, &Backend::scatter_add_rows, p);
}

// tokenLogps(logits, target, out, lse, T, V)
void TokenLogps(const Info& info) {
  Args args(info);
  TokenLogpsParams p{};
  p.T = args.size(4), p.V = args.size(5);
  const TensorRef logits = args.tensor(0, product(p.T, p.V));
  require_float(info.Env(), logits);
  p.logits = logits.data, p.dtype = logits.dtype;
  p.target = args.tensor(1, p.T, DType::kI32).as<int32_t>();
  p.out = args.tensor(2, p.T, DType::kF32).as<float>();
  p.lse = args.tensor(3, p.T, DType::kF32).as<float>();
  enqueue(args, {"token_logps", {{"T", p.T}, {"V", p.V}}}, &Backend::token_logps, p);
}

// tokenLogpsBackward(logits, target, lse, dlogps, dlogits, T, V)
void TokenLogpsBackward(const Info& info) {
  Args args(info);
  TokenLogpsBackwardParams p{};
  p.T = args.size(5), p.V = args.size(6);
  const TensorRef logits = args.tensor(0, product(p.T, p.V));
  require_float(info.Env(), logits);
  p.logits = logits.data, p.dtype = logits.dtype;
  p.target = args.tensor(1, p.T, DType::kI32).as<int32_t>();
  p.lse = args.tensor(2, p.T, DType::kF32).as<float>();
  p.dlogps = args.tensor(3, p.T, DType::kF32).as<float>();
  p.dlogits = args.tensor(4, product(p.T, p.V), p.dtype).data;
  enqueue(args, {"token_logps_backward", {{"T", p.T}, {"V", p.V}}}, &Backend::token_logps_backward, p);
}

// linearLogps(hidden, weight, target, logps, lse, entropy|null, hit|null, dlogps|null, dhidden|null, dweight|null, N,
// C, V)
void LinearLogps(const Info& info) {
  Args args(info);
  LinearLogpsParams p{};
  p.N = args.size(10), p.C = args.size(11), p.V = args.size(12);
  const TensorRef hidden = args.tensor(0, product(p.N, p.C));
  require_float(info.Env(), hidden);
  p.hidden = hidden.data, p.dtype = hidden.dtype;
  p.weight = args.tensor(1, product(p.V, p.C), p.dtype).data;
  p.target = args.tensor(2, p.N, DType::kI32).as<int32_t>();
  p.logps = args.tensor(3, p.N, DType::kF32).as<float>();
  p.lse = args.tensor(4, p.N, DType::kF32).as<float>();
  p.entropy = args.optional(5, p.N, DType::kF32).as<float>();
  p.hit = args.optional(6, p.N, DType::kF32).as<float>();
  p.dlogps = args.optional(7, p.N, DType::kF32).as<float>();
  p.dhidden = args.optional(8, product(p.N, p.C), p.dtype).data;
  p.dweight = args.optional(9, product(p.V, p.C), DType::kF32).as<float>();
  if ((p.dlogps == nullptr) != (p.dhidden == nullptr))
    throw Napi::TypeError::New(info.Env(), "dlogps and dhidden go together");
  enqueue(args, {"linear_logps", {{"N", p.N}, {"C", p.C}, {"V", p.V}}}, &Backend::linear_logps, p);
}

// linearLogpsBackward(hidden, weight, target, lse, dlogps, dhidden, dweight|null, N, C, V)
void LinearLogpsBackward(const Info& info) {
  Args args(info);
  LinearLogpsBackwardParams p{};
  p.N = args.size(7), p.C = args.size(8), p.V = args.size(9);
  const TensorRef hidden = args.tensor(0, product(p.N, p.C));
  require_float(info.Env(), hidden);
  p.hidden = hidden.data, p.dtype = hidden.dtype;
  p.weight = args.tensor(1, product(p.V, p.C), p.dtype).data;
  p.target = args.tensor(2, p.N, DType::kI32).as<int32_t>();
  p.lse = args.tensor(3, p.N, DType::kF32).as<float>();
  p.dlogps = args.tensor(4, p.N, DType::kF32).as<float>();
  p.dhidden = args.tensor(5, product(p.N, p.C), p.dtype).data;
  p.dweight = args.optional(6, product(p.V, p.C), DType::kF32).as<float>();
  enqueue(args, {"linear_logps_backward", {{"N", p.N}, {"C", p.C}, {"V", p.V}}}, &Backend::linear_logps_backward, p);
}

// optimizer(params[], masters[]|null entries, grads[], firsts[]|null entries, seconds[], weightDecays[],
//           lr, beta1, beta2, eps, bias1, bias2, gradScale)
void optimizer(const Info& info, const char* name, Status (Backend::*op)(const OptimizerParams&), bool needs_first) {
  Args args(info);
  const Napi::Array params = args.array(0), masters = args.array(1), grads = args.array(2), firsts = args.array(3),
                    seconds = args.array(4), decays = args.array(5);
  const uint32_t count = params.Length();
  auto tensors = std::make_shared<std::vector<OptimizerTensor>>(count);
  const auto f32 = [&](const Napi::Array& list, uint32_t i, size_t arg, int64_t n) -> float* {
    const TensorRef ref = args.read_tensor(list.Get(i), arg, n);
    if (ref.dtype != DType::kF32) throw Napi::TypeError::New(info.Env(), "optimizer state must be f32");
    return ref.as<float>();
  };
  for (uint32_t i = 0; i < count; ++i) {
    OptimizerTensor& t = (*tensors)[i];
    const TensorRef param = args.read_tensor(params.Get(i), 0, 0);
    require_float(info.Env(), param);
    t.param = param.data, t.dtype = param.dtype, t.n = param.numel;
    t.master = masters.Get(i).IsObject() ? f32(masters, i, 1, t.n) : nullptr;
    t.grad = f32(grads, i, 2, t.n);
    t.first = needs_first ? f32(firsts, i, 3, t.n) : nullptr;
    t.second = f32(seconds, i, 4, t.n);
    t.weight_decay = decays.Get(i).ToNumber().FloatValue();
  }
  if (count == 0) return;
  OptimizerParams p{};
  p.count = static_cast<int32_t>(count);
  double* const scalars[] = {&p.lr, &p.beta1, &p.beta2, &p.eps, &p.bias1, &p.bias2};
  for (size_t i = 0; i < 6; ++i) *scalars[i] = args.number(6 + i);
  p.grad_scale = static_cast<float>(args.number(12));
  args.device().stream.enqueue({name, {{"tensors", p.count}}}, [op, p, tensors](Backend& backend) mutable {
    p.tensors = tensors->data();
    return (backend.*op)(p);
  });
}
void Adamw(const Info& info) { optimizer(info, "adamw", &Backend::adamw, true); }
void Rmsprop(const Info& info) { optimizer(info, "rmsprop", &Backend::rmsprop, false); }

// sumSquares(tensors[], out)
void SumSquares(const Info& info) {
  Args args(info);
  const Napi::Array list = args.array(0);
  const uint32_t count = list.Length();
  auto data = std::make_shared<std::vector<const float*>>(count);
  auto sizes = std::make_shared<std::vector<int64_t>>(count);
  for (uint32_t i = 0; i < count; ++i) {
    const TensorRef ref = args.read_tensor(list.Get(i), 0, 0);
    if (ref.dtype != DType::kF32) throw Napi::TypeError::New(info.Env(), "sum_squares takes f32 tensors");
    (*data)[i] = ref.as<float>();
    (*sizes)[i] = ref.numel;
  }
  SumSquaresParams p{};
  p.out = args.tensor(1, count, DType::kF32).as<float>();
  p.count = static_cast<int32_t>(count);
  args.device().stream.enqueue({"sum_squares", {{"tensors", p.count}}}, [p, data, sizes](Backend& backend) mutable {
    p.tensors = data->data();
    p.sizes = sizes->data();
    return backend.sum_squares(p);
  });
}

// fill(x, value)
void Fill(const Info& info) {
  Args args(info);
  const TensorRef x = args.tensor(0, 0);
  const FillParams p{x.data, x.numel, static_cast<float>(args.number(1)), x.dtype};
  enqueue(args, {"fill", {{"n", p.n}}}, &Backend::fill, p);
}

// scale(x, factor)
void Scale(const Info& info) {
  Args args(info);
  const TensorRef x = args.tensor(0, 0);
  require_float(info.Env(), x);
  const ScaleParams p{x.data, x.numel, static_cast<float>(args.number(1)), x.dtype};
  enqueue(args, {"scale", {{"n", p.n}}}, &Backend::scale, p);
}

// add(a, b, out)
void Add(const Info& info) {
  Args args(info);
  const TensorRef a = args.tensor(0, 0);
  require_float(info.Env(), a);
  const AddParams p{a.data, args.tensor(1, a.numel, a.dtype).data, args.tensor(2, a.numel, a.dtype).data, a.numel,
                    a.dtype};
  enqueue(args, {"add", {{"n", p.n}}}, &Backend::add, p);
}

// cast(x, out)
void Cast(const Info& info) {
  Args args(info);
  const TensorRef x = args.tensor(0, 0), out = args.tensor(1, x.numel);
  require_float(info.Env(), x);
  require_float(info.Env(), out);
  const CastParams p{x.data, out.data, x.numel, x.dtype, out.dtype};
  enqueue(args, {"cast", {{"n", p.n}}}, &Backend::cast, p);
}

// kvAppend and kvGather (qkv, kCache, vCache, slot, position, T, slots, length, Hq, Hkv, D)
template <class Params>
void CacheRows(const Info& info, const char* op, Status (Backend::*run)(const Params&)) {
  Args args(info);
  Params p{};
  p.T = args.size(5), p.slots = args.size(6), p.length = args.size(7);
  p.Hq = args.size32(8), p.Hkv = args.size32(9), p.D = args.size32(10);
  check_heads(info.Env(), p.Hq, p.Hkv, p.D);
  const int64_t cache = product(p.slots, p.length, p.Hkv, p.D);
  const TensorRef qkv = args.tensor(0, product(p.T, p.Hq + 2 * int64_t{p.Hkv}, p.D));
  require_float(info.Env(), qkv);
  p.qkv = qkv.data, p.dtype = qkv.dtype;
  p.k_cache = args.tensor(1, cache, p.dtype).data;
  p.v_cache = args.tensor(2, cache, p.dtype).data;
  p.slot = args.tensor(3, p.T, DType::kI32).template as<int32_t>();
  p.position = args.tensor(4, p.T, DType::kI32).template as<int32_t>();
  enqueue(args, {op, {{"T", p.T}, {"slots", p.slots}, {"length", p.length}}}, run, p);
}
void KvAppend(const Info& info) { CacheRows(info, "kv_append", &Backend::kv_append); }
void KvGather(const Info& info) { CacheRows(info, "kv_gather", &Backend::kv_gather); }

// decodeAttention(qkv, kCache, vCache, slot, position, out, T, slots, length, Hq, Hkv, D, window, scale)
void DecodeAttention(const Info& info) {
  Args args(info);
  DecodeAttentionParams p{};
  p.T = args.size(6), p.slots = args.size(7), p.length = args.size(8);
  p.Hq = args.size32(9), p.Hkv = args.size32(10), p.D = args.size32(11), p.window = args.size32(12);
  p.scale = static_cast<float>(args.number(13));
  check_heads(info.Env(), p.Hq, p.Hkv, p.D);
  const int64_t cache = product(p.slots, p.length, p.Hkv, p.D);
  const TensorRef qkv = args.tensor(0, product(p.T, p.Hq + 2 * int64_t{p.Hkv}, p.D));
  require_float(info.Env(), qkv);
  p.qkv = qkv.data, p.dtype = qkv.dtype;
  p.k_cache = args.tensor(1, cache, p.dtype).data;
  p.v_cache = args.tensor(2, cache, p.dtype).data;
  p.slot = args.tensor(3, p.T, DType::kI32).as<int32_t>();
  p.position = args.tensor(4, p.T, DType::kI32).as<int32_t>();
  p.out = args.tensor(5, product(p.T, p.Hq, p.D), p.dtype).data;
  enqueue(args, {"decode_attention", {{"T", p.T}, {"slots", p.slots}, {"length", p.length}}},
          &Backend::decode_attention, p);
}

// sample(logits, uniform, out, B, V, temperature, topK, topP)
void Sample(const Info& info) {
  Args args(info);
  SampleParams p{};
  p.B = args.size(3), p.V = args.size(4);
  p.temperature = static_cast<float>(args.number(5)), p.top_k = args.size32(6),
  p.top_p = static_cast<float>(args.number(7));
  const TensorRef logits = args.tensor(0, product(p.B, p.V));
  require_float(info.Env(), logits);
  p.logits = logits.data, p.dtype = logits.dtype;
  p.uniform = args.tensor(1, p.B, DType::kF32).as<float>();
  p.out = args.tensor(2, p.B, DType::kI32).as<int32_t>();
  enqueue(args, {"sample", {{"B", p.B}, {"V", p.V}}}, &Backend::sample, p);
}

}  // namespace

void export_ops(Napi::Env env, Napi::Object exports) {
  const struct {
    const char* name;
    void (*call)(const Napi::CallbackInfo&);
  } kOps[] = {
      {"gemm", Gemm},
      {"cublasLtGemm", CublasLtGemm},
      {"rmsNorm", RmsNorm},
      {"rmsNormBackward", RmsNormBackward},
      {"rope", Rope},
      {"attention", Attention},
      {"attentionBackward", AttentionBackward},
      {"swiglu", Swiglu},
      {"swigluBackward", SwigluBackward},
      {"embedding", Embedding},
      {"embeddingBackward", EmbeddingBackward},
      {"scatterAddRows", ScatterAddRows},
      {"tokenLogps", TokenLogps},
      {"tokenLogpsBackward", TokenLogpsBackward},
      {"linearLogps", LinearLogps},
      {"linearLogpsBackward", LinearLogpsBackward},
      {"adamw", Adamw},
      {"rmsprop", Rmsprop},
      {"sumSquares", SumSquares},
      {"fill", Fill},
      {"scale", Scale},
      {"add", Add},
      {"cast", Cast},
      {"kvAppend", KvAppend},
      {"kvGather", KvGather},
      {"decodeAttention", DecodeAttention},
      {"sample", Sample},
  };
  for (const auto& op : kOps) exports.Set(op.name, Napi::Function::New(env, op.call, op.name));
}

}  // namespace westwind
