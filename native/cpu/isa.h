// Instruction sets of the CPU backend: which this machine can run, and which one a process uses.
#pragma once

namespace westwind {

enum class Isa { kPortable, kAvx2, kAvx512, kAmx };

constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx};

const char* name_of(Isa isa);
bool available(Isa isa);  // built in, and the processor and the system have it

}  // namespace westwind
