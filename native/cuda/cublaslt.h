// NVIDIA's cuBLASLt as a peer of gemm, for `westwind bench` alone: opened at run time where the machine has it, never
// linked.
#pragma once
#include "context.h"
#include "ops/gemm.h"

namespace westwind {

// One context's handle. All calls come from the device's stream thread.
class CublasLt {
 public:
  explicit CublasLt(Context& context) : context_(context) {}
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // The contract of ops/gemm.h, by the first algorithm that the library proposes.
  Status gemm(const GemmParams& p);

 private:
  Context& context_;
  void* handle_ = nullptr;
};

}  // namespace westwind
