// gemm on the calling thread alone: for ops that are already inside a parallel region. Same arithmetic, same bits as
// gemm. Uses the thread's scratch slots kPackA and kPackB.
#pragma once
#include "ops/gemm.h"

namespace westwind::WESTWIND_ISA {

Status gemm_block(const GemmParams& p);

}  // namespace westwind::WESTWIND_ISA
