#include "driver.h"

#include <dlfcn.h>

#include <mutex>

namespace westwind {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Opens the library and fills `driver`; a sentence where that fails.
std::string open_driver(Driver& driver) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    const std::string text = error != nullptr ? error : "";
    if (text.find("No such file") != std::string::npos)
      return "libcuda.so.1 was not found. Install the NVIDIA driver, or use --device cpu.";
    return "libcuda.so.1 could not be opened (" + text + "). Reinstall the NVIDIA driver, or use --device cpu.";
  }
  // Resolved by the versioned name that cuda.h maps each call to.
#define WESTWIND_TEXT(name) #name
#define WESTWIND_RESOLVE(name)                                                                             \
  driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(library, WESTWIND_TEXT(name)));              \
  if (driver.name == nullptr)                                                                              \
    return "the NVIDIA driver is too old: it has no " WESTWIND_TEXT(name) ". Install a driver for CUDA " + \
           version_text(CUDA_VERSION / 1000 * 1000) + " or later, or use --device cpu.";
  WESTWIND_CUDA_CALLS(WESTWIND_RESOLVE)
#undef WESTWIND_RESOLVE
#undef WESTWIND_TEXT
  if (driver.cuDriverGetVersion(&driver.version) == CUDA_SUCCESS && driver.version < CUDA_VERSION / 1000 * 1000)
    return "the NVIDIA driver is too old: it has CUDA " + version_text(driver.version) + ", the kernels need " +
           version_text(CUDA_VERSION / 1000 * 1000) + ". Install a newer driver, or use --device cpu.";
  const CUresult result = driver.cuInit(0);
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_NO_DEVICE)
    return "the NVIDIA driver does not start: " + words(driver, result) +
           ". See whether nvidia-smi works, or use --device cpu.";
  if (result == CUDA_SUCCESS) driver.cuDeviceGetCount(&driver.devices);
  if (driver.devices == 0)
    return "the NVIDIA driver sees no GPU. See nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu.";
  return "";
}

}  // namespace

const Driver* find_driver(std::string* why) {
  static std::once_flag once;
  static Driver driver;        // written once, then only read: shared by all environments
  static std::string problem;  // likewise
  std::call_once(once, [] { problem = open_driver(driver); });
  if (problem.empty()) return &driver;
  if (why != nullptr) *why = problem;
  return nullptr;
}

std::string words(const Driver& driver, CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  driver.cuGetErrorName(result, &name);
  driver.cuGetErrorString(result, &text);
  if (name == nullptr) return "CUDA error " + std::to_string(static_cast<int>(result));
  switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
      text = "illegal memory access";
      break;
    case CUDA_ERROR_ECC_UNCORRECTABLE:
      text = "the GPU's memory is damaged, see nvidia-smi -q -d ECC";
      break;
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
      text = "the addon has no kernel image for this GPU";
      break;
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
      text = "another process has the GPU for itself (compute mode)";
      break;
    default:
      break;
  }
  return std::string(text != nullptr ? text : "error") + " (" + name + ")";
}

bool is_lasting(CUresult result) {
  switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

Status check(const Driver& driver, CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return {};
  return fail("%s: %s", what, words(driver, result).c_str());
}

}  // namespace westwind
