#include "names.h"

#include "context.h"

namespace westwind::cuda {

std::string kernel_of(const std::string& op, DType dtype, const std::string& variant) {
  return op + (dtype == DType::kBf16 ? "_bf16" : "_f32") + variant;
}

Names launched_kernels() {
  Names out{Context::kCheckRange};
  for (const auto add :
       {add_attention_names, add_attention_plan_names, add_attention_sm90_names, add_decode_names,
        add_elementwise_names, add_embedding_names, add_gemm_names, add_linear_logps_names, add_optimizer_names,
        add_rms_norm_names, add_rope_names, add_sample_names, add_swiglu_names, add_token_logps_names})
    add(out);
  return out;
}

}  // namespace westwind::cuda
