// cuBLASLt reads matrices by columns: a row-major [r, c] is its [c, r]. So it is asked for Cᵀ = op(B)ᵀ · op(A)ᵀ, B
// first. What is declared here is what is used of its documented API, the same in versions 12 and 13.
#include "cublaslt.h"

#include <dlfcn.h>

#include <mutex>

#include "cuda_backend.h"

namespace westwind {
namespace {

// Values of library_types.h, cublas_api.h and cublasLt.h.
constexpr int kReal32 = 0, kRealBf16 = 14;  // cudaDataType_t
constexpr int kCompute32 = 68;              // CUBLAS_COMPUTE_32F
constexpr int kDescTransA = 3, kDescTransB = 4;
constexpr int kPreferenceWorkspace = 1;                   // bytes, as uint64_t
constexpr uint64_t kWorkspaceBytes = uint64_t{32} << 20;  // what cuBLAS takes on sm_90

struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96);

struct Library {
  int (*cublasLtCreate)(void** handle) = nullptr;
  int (*cublasLtDestroy)(void* handle) = nullptr;
  int (*cublasLtMatmulDescCreate)(void** desc, int compute, int scale_type) = nullptr;
  int (*cublasLtMatmulDescDestroy)(void* desc) = nullptr;
  int (*cublasLtMatmulDescSetAttribute)(void* desc, int attribute, const void* value, size_t bytes) = nullptr;
  int (*cublasLtMatrixLayoutCreate)(void** layout, int type, uint64_t rows, uint64_t columns, int64_t ld) = nullptr;
  int (*cublasLtMatrixLayoutDestroy)(void* layout) = nullptr;
  int (*cublasLtMatmulPreferenceCreate)(void** preference) = nullptr;
  int (*cublasLtMatmulPreferenceDestroy)(void* preference) = nullptr;
  int (*cublasLtMatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value,
                                              size_t bytes) = nullptr;
  int (*cublasLtMatmulAlgoGetHeuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                        int wanted, Heuristic* results, int* found) = nullptr;
  int (*cublasLtMatmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                        void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                        const void* algorithm, void* workspace, size_t workspace_bytes, CUstream stream) = nullptr;
};

std::string open_library(Library& library) {
  void* opened = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) opened = dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return "libcublasLt.so.13 and libcublasLt.so.12 were not found";
#define WESTWIND_RESOLVE(name)                                                   \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(opened, #name)); \
  if (library.name == nullptr) return "libcublasLt.so has no " #name
  WESTWIND_RESOLVE(cublasLtCreate);
  WESTWIND_RESOLVE(cublasLtDestroy);
  WESTWIND_RESOLVE(cublasLtMatmulDescCreate);
  WESTWIND_RESOLVE(cublasLtMatmulDescDestroy);
  WESTWIND_RESOLVE(cublasLtMatmulDescSetAttribute);
  WESTWIND_RESOLVE(cublasLtMatrixLayoutCreate);
  WESTWIND_RESOLVE(cublasLtMatrixLayoutDestroy);
  WESTWIND_RESOLVE(cublasLtMatmulPreferenceCreate);
  WESTWIND_RESOLVE(cublasLtMatmulPreferenceDestroy);
  WESTWIND_RESOLVE(cublasLtMatmulPreferenceSetAttribute);
  WESTWIND_RESOLVE(cublasLtMatmulAlgoGetHeuristic);
  WESTWIND_RESOLVE(cublasLtMatmul);
#undef WESTWIND_RESOLVE
  return "";
}

const Library* find_library(std::string* why) {
  static std::once_flag once;
  static Library library;      // written once, then only read: shared by all environments
  static std::string problem;  // likewise
  std::call_once(once, [] { problem = open_library(library); });
  if (problem.empty()) return &library;
  if (why != nullptr) *why = problem;
  return nullptr;
}

// What one product needs, given back at the end. `result` is the first status that was not 0.
struct Call {
  explicit Call(const Library& opened) : lt(opened) {}
  ~Call() {
    if (preference != nullptr) lt.cublasLtMatmulPreferenceDestroy(preference);
    for (void* layout : {c, b, a})
      if (layout != nullptr) lt.cublasLtMatrixLayoutDestroy(layout);
    if (desc != nullptr) lt.cublasLtMatmulDescDestroy(desc);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // A row-major [rows, columns], as the library sees it.
  int layout(void** out, DType type, int64_t rows, int64_t columns, int64_t ld) {
    return lt.cublasLtMatrixLayoutCreate(out, type == DType::kBf16 ? kRealBf16 : kReal32,
                                         static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), ld);
  }
  int transpose(int attribute, bool transposed) {
    const int32_t op = transposed ? 1 : 0;  // CUBLAS_OP_T, CUBLAS_OP_N
    return lt.cublasLtMatmulDescSetAttribute(desc, attribute, &op, sizeof op);
  }

  const Library& lt;
  void *desc = nullptr, *a = nullptr, *b = nullptr, *c = nullptr, *preference = nullptr;
};

}  // namespace

std::string cublaslt_missing() {
  std::string why;
  find_library(&why);
  return why;
}

CublasLt::~CublasLt() {
  if (handle_ != nullptr) find_library(nullptr)->cublasLtDestroy(handle_);
}

Status CublasLt::gemm(const GemmParams& p) {
  std::string why;
  const Library* lt = find_library(&why);
  if (lt == nullptr) return fail("cuBLASLt: %s", why.c_str());
  if (p.M <= 0 || p.N <= 0 || p.K <= 0) return fail("cuBLASLt: M, N and K must be above 0");
  int result = handle_ == nullptr ? lt->cublasLtCreate(&handle_) : 0;
  if (result != 0) return fail("cuBLASLt: cublasLtCreate returned %d", result);

  Call call(*lt);
  const auto step = [&](int status) {
    if (result == 0) result = status;
    return result == 0;
  };
  Heuristic best{};
  int found = 0;
  const bool ready = step(lt->cublasLtMatmulDescCreate(&call.desc, kCompute32, kReal32)) &&
                     step(call.transpose(kDescTransA, p.trans_b)) && step(call.transpose(kDescTransB, p.trans_a)) &&
                     step(call.layout(&call.b, p.b_type, p.trans_b ? p.N : p.K, p.trans_b ? p.K : p.N, p.ldb)) &&
                     step(call.layout(&call.a, p.a_type, p.trans_a ? p.K : p.M, p.trans_a ? p.M : p.K, p.lda)) &&
                     step(call.layout(&call.c, p.c_type, p.M, p.N, p.ldc)) &&
                     step(lt->cublasLtMatmulPreferenceCreate(&call.preference)) &&
                     step(lt->cublasLtMatmulPreferenceSetAttribute(call.preference, kPreferenceWorkspace,
                                                                   &kWorkspaceBytes, sizeof kWorkspaceBytes)) &&
                     step(lt->cublasLtMatmulAlgoGetHeuristic(handle_, call.desc, call.b, call.a, call.c, call.c,
                                                             call.preference, 1, &best, &found));
  if (!ready) return fail("cuBLASLt: a call before cublasLtMatmul returned %d", result);
  if (found < 1 || best.status != 0) return fail("cuBLASLt: no algorithm for this product");

  void* workspace = nullptr;
  if (best.workspace_bytes > 0) {
    const Status status = context_.workspace(static_cast<int64_t>(best.workspace_bytes), &workspace);
    if (!status.ok) return status;
  }
  result = lt->cublasLtMatmul(handle_, call.desc, &p.alpha, p.b, call.b, p.a, call.a, &p.beta, p.c, call.c, p.c, call.c,
                              best.algorithm, workspace, best.workspace_bytes, context_.stream());
  return result == 0 ? Status{} : fail("cuBLASLt: cublasLtMatmul returned %d", result);
}

}  // namespace westwind
