#include "module.h"

namespace westwind {

std::string image_for(int arch) {
#ifdef WESTWIND_PTX_ONLY
  if (arch == 90) return "PTX compute_90a and compute_80, compiled by the driver";
#else
  if (arch == 80 || arch == 86 || arch == 89) return "sm_" + std::to_string(arch) + " machine code";
  if (arch == 90) return "sm_90a machine code";
#endif
  return arch >= 80 ? "PTX compute_80, compiled by the driver" : "";
}

Status Modules::load(const std::string& kernel, const int (&parameters)[kMaxParameters], CUfunction* out) {
  for (int i = 0; i < kEmbeddedKernelCount; ++i) {
    const EmbeddedKernel& embedded = kEmbeddedKernels[i];
    if (kernel != embedded.name) continue;
    for (int k = 0; k < kMaxParameters; ++k) {
      if (parameters[k] == embedded.parameters[k]) continue;
      return fail("%s: parameter %d has %d bytes in the kernel, %d here; build the addon again", embedded.name, k,
                  embedded.parameters[k], parameters[k]);
    }
    CUmodule& module = modules_[embedded.image];
    const EmbeddedImage& image = kEmbeddedImages[embedded.image];
    if (module == nullptr) {
      const Status status = check(driver_, driver_.cuModuleLoadData(&module, image.data), image.file);
      if (!status.ok) return status;
    }
    return check(driver_, driver_.cuModuleGetFunction(out, module, embedded.name), embedded.name);
  }
  return fail("the addon has no kernel %s", kernel.c_str());
}

Status Modules::find(const std::string& kernel, int shared_bytes, const int (&parameters)[kMaxParameters],
                     CUfunction* out) {
  Entry& entry = kernels_[kernel];
  if (entry.function == nullptr) {
    const Status status = load(kernel, parameters, &entry.function);
    if (!status.ok) return status;
  }
  if (shared_bytes > entry.shared_bytes) {
    const Status status =
        check(driver_,
              driver_.cuFuncSetAttribute(entry.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes),
              kernel.c_str());
    if (!status.ok) return status;
    entry.shared_bytes = shared_bytes;
  }
  *out = entry.function;
  return {};
}

void Modules::unload() {
  for (CUmodule& module : modules_) {
    if (module != nullptr) driver_.cuModuleUnload(module);
    module = nullptr;
  }
  kernels_.clear();
}

}  // namespace westwind
