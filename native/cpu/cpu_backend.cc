#include "cpu_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "ops.h"

namespace westwind {
namespace {

// The memory this process may use: the machine's, or less where a control group says so.
int64_t read_capacity() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    FILE* file = fopen(path, "r");
    if (file == nullptr) continue;
    long long limit = 0;
    if (fscanf(file, "%lld", &limit) == 1 && limit > 0 && limit < bytes) bytes = limit;
    fclose(file);
  }
  return bytes;
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(Isa isa, int threads) : isa_(isa), threads_(threads), capacity_(read_capacity()) {}

  void start_stream_thread() override {
#ifdef _OPENMP
    omp_set_num_threads(threads_);
#endif
  }

  Facts facts() const override { return {name_of(isa_), threads_, ""}; }

  Status allocate(int64_t bytes, void** out) override {
    *out = nullptr;
#ifdef WESTWIND_SANITIZE
    *out = malloc(static_cast<size_t>(bytes));  // bounds to the byte
    return {};
#endif
    void* memory =
        mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return {};
#ifdef MADV_HUGEPAGE
    if (bytes >= (int64_t{4} << 20)) madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
    *out = memory;
    return {};
  }
  void release(void* memory, int64_t bytes) override {
#ifdef WESTWIND_SANITIZE
    return free(memory);
#endif
    munmap(memory, static_cast<size_t>(bytes));
  }
  int64_t capacity() const override { return capacity_; }
  int64_t workspace_bytes() const override { return 0; }  // of each thread: not counted

  Status copy_in(void* to, const void* host, int64_t bytes) override {
    if (bytes > 0) memcpy(to, host, static_cast<size_t>(bytes));  // memory of no bytes may be null
    return {};
  }
  Status copy_out(void* host, const void* from, int64_t bytes) override {
    if (bytes > 0) memcpy(host, from, static_cast<size_t>(bytes));
    return {};
  }
  Status wait() override { return {}; }
  Status mark(int which) override {
    marks_[which] = std::chrono::steady_clock::now();
    return {};
  }
  Status between_marks(double* ms) override {
    *ms = std::chrono::duration<double, std::milli>(marks_[1] - marks_[0]).count();
    return {};
  }

#ifdef WESTWIND_HAS_AVX2
#define WESTWIND_IF_AVX(name)                       \
  if (isa_ == Isa::kAvx512) return avx512::name(p); \
  if (isa_ == Isa::kAvx2) return avx2::name(p);
#else
#define WESTWIND_IF_AVX(name)
#endif
#ifdef WESTWIND_HAS_AMX
#define WESTWIND_IF_AMX(name) \
  if (isa_ == Isa::kAmx) return amx::name(p);
#else
#define WESTWIND_IF_AMX(name)
#endif
#define WESTWIND_DISPATCH(name, Params)   \
  Status name(const Params& p) override { \
    WESTWIND_IF_AMX(name)                 \
    WESTWIND_IF_AVX(name)                 \
    return portable::name(p);             \
  }
  WESTWIND_OPS(WESTWIND_DISPATCH)
#undef WESTWIND_DISPATCH
#undef WESTWIND_IF_AMX
#undef WESTWIND_IF_AVX

 private:
  const Isa isa_;
  const int threads_;
  const int64_t capacity_;
  std::chrono::steady_clock::time_point marks_[2];
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(Isa isa, int threads) { return std::make_unique<CpuBackend>(isa, threads); }

int default_threads() {
#ifdef _OPENMP
  return omp_get_num_procs();
#else
  return 1;
#endif
}

}  // namespace westwind
