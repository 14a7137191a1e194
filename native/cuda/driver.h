// The CUDA driver, opened at run time: nothing links to it, so the addon loads on machines that have none.
#pragma once
#include <cuda.h>

#include <string>

#include "status.h"

namespace westwind {

// Every entry point that is used, once.
// clang-format off
#define WESTWIND_CUDA_CALLS(call)                                                                    \
  call(cuInit) call(cuDriverGetVersion) call(cuGetErrorName) call(cuGetErrorString)                  \
  call(cuDeviceGet) call(cuDeviceGetCount) call(cuDeviceGetName) call(cuDeviceGetAttribute)          \
  call(cuDeviceTotalMem) call(cuDevicePrimaryCtxRetain) call(cuDevicePrimaryCtxRelease)              \
  call(cuCtxSetCurrent) call(cuCtxPushCurrent) call(cuCtxPopCurrent)                                 \
  call(cuStreamCreate) call(cuStreamDestroy) call(cuStreamSynchronize)                               \
  call(cuEventCreate) call(cuEventDestroy) call(cuEventRecord) call(cuEventSynchronize)              \
  call(cuEventElapsedTime)                                                                           \
  call(cuMemAlloc) call(cuMemFree) call(cuMemAllocHost) call(cuMemFreeHost) call(cuMemGetInfo)       \
  call(cuMemcpyHtoDAsync) call(cuMemcpyDtoHAsync) call(cuMemcpyDtoDAsync) call(cuMemsetD8Async)      \
  call(cuModuleLoadData) call(cuModuleUnload) call(cuModuleGetFunction) call(cuFuncSetAttribute)     \
  call(cuLaunchKernelEx) call(cuTensorMapEncodeTiled)                                                \
  call(cuStreamBeginCapture) call(cuStreamEndCapture) call(cuGraphInstantiate) call(cuGraphDestroy)  \
  call(cuGraphLaunch) call(cuGraphExecDestroy)
// clang-format on

struct Driver {
#define WESTWIND_MEMBER(name) decltype(&::name) name = nullptr;
  WESTWIND_CUDA_CALLS(WESTWIND_MEMBER)
#undef WESTWIND_MEMBER
  int version = 0;  // 12040 is CUDA 12.4
  int devices = 0;
};

// The driver, or null and in `why` one sentence that says what to do. The library is opened once per process.
const Driver* find_driver(std::string* why);

// "out of memory (CUDA_ERROR_OUT_OF_MEMORY)", in words of ours where the driver's say too little.
std::string words(const Driver& driver, CUresult result);

// Whether every later call of the process on that GPU fails too.
bool is_lasting(CUresult result);

// Turns a result into a Status; `what` says what was being done.
Status check(const Driver& driver, CUresult result, const char* what);

}  // namespace westwind
