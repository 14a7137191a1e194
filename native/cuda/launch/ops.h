// The host side of every op: checks what the device needs checked, chooses a kernel, fills its parameters, launches.
#pragma once
#include "backend.h"
#include "context.h"

#define WESTWIND_DECLARE_OP(name, Params) Status name(Context& context, const Params& p);
namespace westwind::cuda {
WESTWIND_OPS(WESTWIND_DECLARE_OP)
}
#undef WESTWIND_DECLARE_OP
