// Names of kernels: how they are made, and every one that the launch code may ask for, so that a test can hold them
// against those in the fat binaries without a GPU.
#pragma once
#include <string>
#include <vector>

#include "dtype.h"

namespace westwind::cuda {

using Names = std::vector<std::string>;

constexpr DType kFloats[] = {DType::kF32, DType::kBf16};

// <op>_<dtype><variant>
std::string kernel_of(const std::string& op, DType dtype, const std::string& variant = "");

// Each launch/<op>.cc adds what it launches, made by the functions that make the names for the launch.
void add_attention_names(Names& out);
void add_attention_plan_names(Names& out);
void add_attention_sm90_names(Names& out);
void add_decode_names(Names& out);
void add_elementwise_names(Names& out);
void add_embedding_names(Names& out);
void add_gemm_names(Names& out);
void add_linear_logps_names(Names& out);
void add_optimizer_names(Names& out);
void add_rms_norm_names(Names& out);
void add_rope_names(Names& out);
void add_sample_names(Names& out);
void add_swiglu_names(Names& out);
void add_token_logps_names(Names& out);

Names launched_kernels();

}  // namespace westwind::cuda
