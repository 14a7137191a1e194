// The ops of one instruction set. Every file in ops/ is compiled once per set, into namespace westwind::<set>.
//
// Rule for those files: whatever they define or instantiate has internal linkage (anonymous namespace), and they use no
// templates or inline functions of the standard library: the linker would keep one copy of a shared body, maybe one
// that another processor cannot run. scripts/check-native.mjs looks for such symbols.
#pragma once
#include "backend.h"

#define WESTWIND_DECLARE_OP(name, Params) Status name(const Params& p);
namespace westwind::portable {
WESTWIND_OPS(WESTWIND_DECLARE_OP)
}
namespace westwind::avx2 {
WESTWIND_OPS(WESTWIND_DECLARE_OP)
}
namespace westwind::avx512 {
WESTWIND_OPS(WESTWIND_DECLARE_OP)
}
namespace westwind::amx {
WESTWIND_OPS(WESTWIND_DECLARE_OP)
}
#undef WESTWIND_DECLARE_OP
