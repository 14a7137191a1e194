// The CUDA backend: kernels embedded in the addon, run by the driver that the machine has.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace westwind {

// Null, and one sentence in `why`, when the device is not there.
std::unique_ptr<Backend> make_cuda_backend(int ordinal, std::string* why);

struct CudaDevice {
  std::string name;
  int arch = 0, sms = 0;
  int64_t memory_bytes = 0;
  std::string image;  // what the driver takes from the addon; empty: nothing fits
};

// The GPUs of the machine; none, and one sentence in `why`, where there is no driver or no GPU.
std::vector<CudaDevice> cuda_devices(int* driver_version, std::string* why);

// gemm by NVIDIA's cuBLASLt, which `westwind bench` times beside ours; and empty, or why there is none.
Status cublaslt_gemm(Backend& backend, const GemmParams& p);
std::string cublaslt_missing();

// Names of the kernels embedded in the addon; empty in a build without CUDA.
std::vector<std::string> cuda_kernels();

// Names that the launch code may ask for; likewise.
std::vector<std::string> cuda_launches();

// A fat binary of the addon: its file in kernels/, and what is in it, as in "sm_80 sm_90a compute_80".
struct CudaImage {
  std::string file, codes;
};
std::vector<CudaImage> cuda_images();

// What a GPU of this architecture runs of them, in words; empty: nothing fits.
std::string cuda_image_for(int arch);

}  // namespace westwind
