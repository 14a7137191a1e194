// gemm on tensor cores, A [M, K] and B [K, N]: gradients by the input of a linear layer.
// The kernel and its limits: common/gemm_mma.cuh
#include "common/gemm_mma.cuh"

using namespace westwind;

#define WESTWIND_GEMM_KERNEL(M, N, K, WarpM, WarpN, Stages)                     \
  extern "C" __global__ void __launch_bounds__((M / WarpM) * (N / WarpN) * 32)  \
      gemm_bf16_sm80_nn_##M##x##N(const __grid_constant__ GemmKernelParams p) { \
    gemm_mma<false, false, M, N, K, WarpM, WarpN, Stages>(p);                   \
  }
WESTWIND_GEMM_TILES(WESTWIND_GEMM_KERNEL)

extern "C" __global__ void __launch_bounds__(128)
    gemm_bf16_sm80_nn_64x64_ragged(const __grid_constant__ GemmKernelParams p) {
  gemm_mma<false, false, 64, 64, 64, 32, 32, 3, true>(p);
}
