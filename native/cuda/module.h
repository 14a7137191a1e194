// The kernels inside the addon: one fat binary per file of kernels/, loaded when a kernel of it is first asked for.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "driver.h"

namespace westwind {

// Written by the build (embed.cmake).
struct EmbeddedImage {
  const char* file;  // without folder and ending
  const char* data;
  const char* codes;  // what is in it, as in "sm_80 sm_90a compute_80"
};
constexpr int kMaxParameters = 8;
struct EmbeddedKernel {
  const char* name;
  int image;                       // index into kEmbeddedImages
  int parameters[kMaxParameters];  // bytes of each, as the device code has it; 0: no more
};
extern const EmbeddedImage kEmbeddedImages[];
extern const EmbeddedKernel kEmbeddedKernels[];
extern const int kEmbeddedImageCount, kEmbeddedKernelCount;

// What the driver will take from the fat binaries for an architecture (80, 86, 90, …), in words; empty: nothing fits.
std::string image_for(int arch);

// The kernels of one context.
class Modules {
 public:
  explicit Modules(const Driver& driver) : driver_(driver), modules_(kEmbeddedImageCount, nullptr) {}

  // Loads what is needed and allows the kernel `shared_bytes` of dynamic shared memory. `parameters`: bytes of each
  // that the caller will pass; another layout than the kernel's is refused. The context must be current.
  Status find(const std::string& kernel, int shared_bytes, const int (&parameters)[kMaxParameters], CUfunction* out);
  void unload();  // the context must be current

 private:
  struct Entry {
    CUfunction function = nullptr;
    int shared_bytes = 48 << 10;  // what every kernel may have
  };
  Status load(const std::string& kernel, const int (&parameters)[kMaxParameters], CUfunction* out);

  const Driver& driver_;
  std::vector<CUmodule> modules_;
  std::unordered_map<std::string, Entry> kernels_;
};

}  // namespace westwind
