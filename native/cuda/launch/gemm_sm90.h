// gemm on the tensor cores of Hopper.
#pragma once
#include "gemm_config.h"
#include "ops.h"

namespace westwind {

// For bf16 operands on 16-byte boundaries; block_m is that of a cluster. See choose_gemm.
GemmConfig choose_gemm_sm90(const GemmShape& shape, int sms);
void add_gemm_sm90_kernels(std::vector<std::string>& out);

constexpr int64_t kSm90MostLines = int64_t{1} << 30;  // of rows, columns or K: coordinates of TMA are 32-bit

namespace cuda {
Status launch_gemm_sm90(Context& context, const GemmConfig& config, const GemmKernelParams& k);
}  // namespace cuda
}  // namespace westwind
