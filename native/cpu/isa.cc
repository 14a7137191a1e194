#include "isa.h"

#if defined(WESTWIND_HAS_AMX) && !defined(WESTWIND_SOFTWARE_TILES)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace westwind {
namespace {

#if defined(WESTWIND_HAS_AMX) && !defined(WESTWIND_SOFTWARE_TILES)
// Linux keeps the 8 KB of tiles from processes that have not asked for them; threads started later have them too.
// Documentation/arch/x86/xstate.rst of the kernel.
bool tiles_permitted() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // the state component
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

bool processor_has_tiles() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID leaf 7, EDX
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxBf16) != 0 && (d & kAmxTile) != 0;
}
#endif

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

bool available(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return true;
#ifdef WESTWIND_HAS_AVX2
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#if defined(WESTWIND_SOFTWARE_TILES)
    case Isa::kAmx:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(WESTWIND_HAS_AMX)
    case Isa::kAmx:
      return available(Isa::kAvx512) && processor_has_tiles() && tiles_permitted();
#endif
    default:
      return false;
  }
}

}  // namespace westwind
