#include "cuda_backend.h"

#include "cublaslt.h"
#include "launch/names.h"
#include "launch/ops.h"

namespace westwind {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Context> context) : context_(std::move(context)) {}
  CublasLt& peer() {
    if (!peer_) peer_ = std::make_unique<CublasLt>(*context_);
    return *peer_;
  }

  void start_stream_thread() override { context_->make_current(); }
  Status allocate(int64_t bytes, void** out) override { return context_->allocate(bytes, out); }
  void release(void* memory, int64_t) override { context_->release(memory); }
  int64_t capacity() const override { return context_->facts().memory_bytes; }
  int64_t workspace_bytes() const override { return context_->workspace_bytes(); }
  void on_no_room(std::function<void()> make_room) override { context_->on_no_room(std::move(make_room)); }
  Facts facts() const override {
    const DeviceFacts& f = context_->facts();
    return {"sm_" + std::to_string(f.arch), f.sms, f.name};
  }
  Status copy_in(void* to, const void* host, int64_t bytes) override { return context_->copy_in(to, host, bytes); }
  Status copy_out(void* host, const void* from, int64_t bytes) override {
    return context_->copy_out(host, from, bytes);
  }
  Status wait() override { return context_->wait(); }
  Status mark(int which) override { return context_->mark(which); }
  Status between_marks(double* ms) override { return context_->between_marks(ms); }

  Status run_again(const RecordedJobs& jobs, std::shared_ptr<void>& compiled) override {
    std::shared_ptr<void> unused;
    return context_->run_graph(compiled, [&] { return Backend::run_again(jobs, unused); });
  }

#define WESTWIND_DISPATCH(name, Params) \
  Status name(const Params& p) override { return cuda::name(*context_, p); }
  WESTWIND_OPS(WESTWIND_DISPATCH)
#undef WESTWIND_DISPATCH

 private:
  const std::unique_ptr<Context> context_;
  std::unique_ptr<CublasLt> peer_;  // made when first asked for
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int ordinal, std::string* why) {
  auto context = Context::open(ordinal, why);
  if (!context) return nullptr;
  return std::make_unique<CudaBackend>(std::move(context));
}

Status cublaslt_gemm(Backend& backend, const GemmParams& p) {
  auto* cuda = dynamic_cast<CudaBackend*>(&backend);
  return cuda != nullptr ? cuda->peer().gemm(p) : fail("cuBLASLt: the tensors are not on a GPU");
}

std::vector<std::string> cuda_kernels() {
  std::vector<std::string> out;
  out.reserve(static_cast<size_t>(kEmbeddedKernelCount));
  for (int i = 0; i < kEmbeddedKernelCount; ++i) out.push_back(kEmbeddedKernels[i].name);
  return out;
}

std::vector<std::string> cuda_launches() { return cuda::launched_kernels(); }

std::vector<CudaImage> cuda_images() {
  std::vector<CudaImage> out;
  out.reserve(static_cast<size_t>(kEmbeddedImageCount));
  for (int i = 0; i < kEmbeddedImageCount; ++i) out.push_back({kEmbeddedImages[i].file, kEmbeddedImages[i].codes});
  return out;
}

std::string cuda_image_for(int arch) { return image_for(arch); }

std::vector<CudaDevice> cuda_devices(int* driver_version, std::string* why) {
  std::vector<CudaDevice> out;
  const Driver* driver = find_driver(why);
  if (driver == nullptr) return out;
  *driver_version = driver->version;
  for (int i = 0; i < driver->devices; ++i) {
    CUdevice device = 0;
    DeviceFacts facts{};
    if (driver->cuDeviceGet(&device, i) != CUDA_SUCCESS || !read_facts(*driver, device, &facts).ok) continue;
    out.push_back({facts.name, facts.arch, facts.sms, facts.memory_bytes, image_for(facts.arch)});
  }
  return out;
}

}  // namespace westwind
