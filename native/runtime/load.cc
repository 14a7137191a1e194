#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace westwind {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;  // elements converted at a time

float from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | mantissa << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {  // zero or subnormal: mantissa · 2^-24
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

// The file's elements [first, first + count) as f32.
void to_f32(const char* file, FileType from, int64_t first, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    if (from == FileType::kF32) {
      memcpy(out + i, file + 4 * (first + i), 4);
      continue;
    }
    uint16_t half;
    memcpy(&half, file + 2 * (first + i), 2);
    out[i] = from == FileType::kBf16 ? to_float(bf16{half}) : from_f16(half);
  }
}

Status convert(Backend& backend, const char* file, int64_t n, FileType from, char* to, DType dtype) {
  const int64_t width = size_of(dtype);
  const bool same = (from == FileType::kF32 && dtype == DType::kF32) ||
                    (from == FileType::kI32 && dtype == DType::kI32) ||
                    (from == FileType::kBf16 && dtype == DType::kBf16);
  if (same) return backend.copy_in(to, file, n * width);
  std::vector<float> floats(static_cast<size_t>(std::min(n, kChunk)));
  std::vector<bf16> halves(dtype == DType::kBf16 ? floats.size() : 0);
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t count = std::min(kChunk, n - first);
    to_f32(file, from, first, count, floats.data());
    const void* source = floats.data();
    if (dtype == DType::kBf16) {
      for (int64_t i = 0; i < count; ++i) halves[i] = to_bf16(floats[i]);
      source = halves.data();
    }
    const Status status = backend.copy_in(to + first * width, source, count * width);
    if (!status.ok) return status;
  }
  return {};
}

}  // namespace

Status load(Backend& backend, const std::string& path, int64_t offset, int64_t n, FileType from, void* to,
            DType dtype) {
  if ((from == FileType::kI32) != (dtype == DType::kI32)) return fail("integers and floats do not convert");
  if (n == 0) return {};
  const int64_t bytes = n * (from == FileType::kF32 || from == FileType::kI32 ? 4 : 2);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail("%s: %s", path.c_str(), strerror(errno));
  struct stat info;
  if (fstat(fd, &info) != 0 || offset < 0 || offset > info.st_size || bytes > info.st_size - offset) {
    close(fd);
    return fail("%s: the file ends before byte %lld", path.c_str(), static_cast<long long>(offset + bytes));
  }
  const int64_t page = sysconf(_SC_PAGE_SIZE);
  const int64_t start = offset / page * page;
  const size_t mapped = static_cast<size_t>(offset - start + bytes);
  void* map = mmap(nullptr, mapped, PROT_READ, MAP_PRIVATE, fd, start);
  close(fd);
  if (map == MAP_FAILED) return fail("%s: cannot be mapped: %s", path.c_str(), strerror(errno));
  const Status status =
      convert(backend, static_cast<char*>(map) + (offset - start), n, from, static_cast<char*>(to), dtype);
  munmap(map, mapped);
  return status;
}

}  // namespace westwind
