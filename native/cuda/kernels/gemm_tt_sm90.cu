// gemm on Hopper, both stored transposed: common/gemm_sm90.cuh
#include "common/gemm_sm90.cuh"

using namespace westwind;

WESTWIND_GEMM_SM90(kSm90Large, gemm_bf16_sm90_tt_128x256, __cluster_dims__(2, 1, 1), true, true)
WESTWIND_GEMM_SM90(kSm90Medium, gemm_bf16_sm90_tt_128x128, , true, true)
WESTWIND_GEMM_SM90(kSm90Small, gemm_bf16_sm90_tt_64x64, , true, true)
