// The CPU backend: ops of the chosen instruction set, plain memory, threads by OpenMP.
#pragma once
#include <memory>

#include "backend.h"
#include "isa.h"

namespace westwind {

// threads: >= 1.
std::unique_ptr<Backend> make_cpu_backend(Isa isa, int threads);

int default_threads();

}  // namespace westwind
