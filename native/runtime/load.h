// Reads a range of a file straight into device memory, converting between f32, bf16 and f16 on the way.
#pragma once
#include <string>

#include "backend.h"

namespace westwind {

enum class FileType { kF32, kBf16, kF16, kI32 };

// n elements from byte `offset` of `path` into `to` (elements of `dtype`).
Status load(Backend& backend, const std::string& path, int64_t offset, int64_t n, FileType from, void* to, DType dtype);

}  // namespace westwind
