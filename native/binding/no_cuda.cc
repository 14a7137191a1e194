// What stands in for the CUDA backend in a build without nvcc.
#ifndef WESTWIND_HAS_CUDA
#include "cuda_backend.h"

namespace westwind {
namespace {
constexpr const char* kWhy =
    "this build of westwind has no CUDA kernels: nvcc was missing when it was built, or WESTWIND_CUDA was off. Install "
    "the "
    "CUDA toolkit and build again, or use --device cpu.";
}

std::unique_ptr<Backend> make_cuda_backend(int, std::string* why) {
  *why = kWhy;
  return nullptr;
}

std::vector<CudaDevice> cuda_devices(int*, std::string* why) {
  *why = kWhy;
  return {};
}

Status cublaslt_gemm(Backend&, const GemmParams&) { return fail("%s", kWhy); }

std::string cublaslt_missing() { return kWhy; }

std::vector<std::string> cuda_kernels() { return {}; }
std::vector<std::string> cuda_launches() { return {}; }
std::vector<CudaImage> cuda_images() { return {}; }
std::string cuda_image_for(int) { return ""; }

}  // namespace westwind
#endif
