// What every backend asks of an op's sizes and settings, in one place, so that they refuse the same in the same words.
#pragma once
#include "ops/decode.h"
#include "status.h"

namespace westwind {

Status check_arguments(const SampleParams& p);

}  // namespace westwind
