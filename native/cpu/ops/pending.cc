// Ops that are not written yet: weak, so that the real ones replace them. This file goes away with the last of them.
#include "../ops.h"
namespace westwind::WESTWIND_ISA {
#define WESTWIND_PENDING(name, Params) \
  __attribute__((weak)) Status name(const Params&) { return fail(#name ": not built"); }
WESTWIND_OPS(WESTWIND_PENDING)
}  // namespace westwind::WESTWIND_ISA
