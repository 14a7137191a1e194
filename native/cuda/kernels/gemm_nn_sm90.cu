// gemm on Hopper, A and B stored as they are: common/gemm_sm90.cuh
#include "common/gemm_sm90.cuh"

using namespace westwind;

WESTWIND_GEMM_SM90(kSm90Large, gemm_bf16_sm90_nn_128x256, __cluster_dims__(2, 1, 1), false, false)
WESTWIND_GEMM_SM90(kSm90Medium, gemm_bf16_sm90_nn_128x128, , false, false)
WESTWIND_GEMM_SM90(kSm90Small, gemm_bf16_sm90_nn_64x64, , false, false)
