#include "context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <utility>

namespace westwind {
namespace {

constexpr int64_t kStagingBytes = int64_t{4}
                                  << 20;  // pinned; two of them, so that filling one overlaps sending the other
constexpr int64_t kWorkspaceUnit = int64_t{2} << 20;
constexpr size_t kMostExpected = 1 << 16;  // fault numbers between waits; then wait, so that the list stays short

CUdeviceptr address(const void* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

int attribute(const Driver& driver, CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver.cuDeviceGetAttribute(&value, which, device);
  return value;
}

bool is_set(const char* value) { return value != nullptr && strcmp(value, "") != 0 && strcmp(value, "0") != 0; }

}  // namespace

Status read_facts(const Driver& driver, CUdevice device, DeviceFacts* out) {
  char name[256] = {};
  size_t bytes = 0;
  Status status = check(driver, driver.cuDeviceGetName(name, sizeof name - 1, device), "name of the GPU");
  if (status.ok) status = check(driver, driver.cuDeviceTotalMem(&bytes, device), "memory of the GPU");
  if (!status.ok) return status;
  const auto get = [&](CUdevice_attribute which) { return attribute(driver, device, which); };
  out->name = name;
  out->arch =
      10 * get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) + get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  out->sms = get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  out->shared_bytes = get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  out->l2_bytes = get(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  out->clock_khz = get(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  out->memory_clock_khz = get(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
  out->memory_bus_bits = get(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  out->memory_bytes = static_cast<int64_t>(bytes);
  return {};
}

std::unique_ptr<Context> Context::open(int ordinal, std::string* why) {
  const Driver* driver = find_driver(why);
  if (driver == nullptr) return nullptr;
  CUdevice device = 0;
  if (ordinal < 0 || ordinal >= driver->devices || driver->cuDeviceGet(&device, ordinal) != CUDA_SUCCESS) {
    *why = "there is no such GPU: the driver sees " + std::to_string(driver->devices) + ", numbered from 0";
    return nullptr;
  }
  DeviceFacts facts{};
  Status status = read_facts(*driver, device, &facts);
  if (status.ok && image_for(facts.arch).empty()) {
    *why = "no kernels for " + facts.name + " (sm_" + std::to_string(facts.arch) +
           "): westwind needs compute capability 8.0 or later. Use --device cpu.";
    return nullptr;
  }
  std::unique_ptr<Context> context(new Context(*driver, facts));
  if (status.ok) status = context->prepare(device);
  if (status.ok) return context;
  *why = status.message;
  return nullptr;
}

Status Context::prepare(CUdevice device) {
  device_ = device;
  sync_ = is_set(getenv("WESTWIND_SYNC"));
  Status status = check(driver_, driver_.cuDevicePrimaryCtxRetain(&context_, device), "opening the GPU");
  if (!status.ok) {
    context_ = nullptr;
    return status;
  }
  driver_.cuCtxPushCurrent(context_);
  status = check(driver_, driver_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "making a stream");
  for (Staging& staging : staging_) {
    if (status.ok)
      status = check(driver_, driver_.cuMemAllocHost(&staging.memory, static_cast<size_t>(kStagingBytes)),
                     "pinned memory for copies");
    if (status.ok)
      status = check(driver_, driver_.cuEventCreate(&staging.free, CU_EVENT_DISABLE_TIMING), "making an event");
  }
  for (CUevent& mark : marks_) {
    if (status.ok) status = check(driver_, driver_.cuEventCreate(&mark, CU_EVENT_DEFAULT), "making an event");
  }
  CUdeviceptr cell = 0;
  void* pinned = nullptr;
  if (status.ok) status = check(driver_, driver_.cuMemAlloc(&cell, sizeof(Fault)), "memory of the GPU");
  if (status.ok) status = check(driver_, driver_.cuMemAllocHost(&pinned, sizeof(Fault)), "pinned memory");
  fault_ = reinterpret_cast<Fault*>(cell);
  host_fault_ = static_cast<Fault*>(pinned);
  if (status.ok) {
    *host_fault_ = {0, 0, kNoPlace};
    status = check(driver_, driver_.cuMemcpyHtoDAsync(cell, host_fault_, sizeof(Fault), stream_), "first copy");
  }
  if (status.ok) status = check(driver_, driver_.cuStreamSynchronize(stream_), "first copy");
  CUcontext popped = nullptr;
  driver_.cuCtxPopCurrent(&popped);
  return status;
}

Context::~Context() {
  if (context_ == nullptr) return;
  driver_.cuCtxPushCurrent(context_);
  if (stream_ != nullptr) driver_.cuStreamSynchronize(stream_);
  modules_.unload();
  for (void* memory : workspace_)
    if (memory != nullptr) driver_.cuMemFree(address(memory));
  if (fault_ != nullptr) driver_.cuMemFree(address(fault_));
  if (host_fault_ != nullptr) driver_.cuMemFreeHost(host_fault_);
  for (CUevent mark : marks_) {
    if (mark != nullptr) driver_.cuEventDestroy(mark);
  }
  for (Staging& staging : staging_) {
    if (staging.free != nullptr) driver_.cuEventDestroy(staging.free);
    if (staging.memory != nullptr) driver_.cuMemFreeHost(staging.memory);
  }
  if (stream_ != nullptr) driver_.cuStreamDestroy(stream_);
  CUcontext popped = nullptr;
  driver_.cuCtxPopCurrent(&popped);
  driver_.cuDevicePrimaryCtxRelease(device_);
}

Status Context::allocate(int64_t bytes, void** out) {
  driver_.cuCtxPushCurrent(context_);
  CUdeviceptr memory = 0;
  const CUresult result = driver_.cuMemAlloc(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  CUcontext popped = nullptr;
  driver_.cuCtxPopCurrent(&popped);
  *out = result == CUDA_SUCCESS ? reinterpret_cast<void*>(memory) : nullptr;
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return {};
  Status status = check(driver_, result, "memory of the GPU");
  status.late = is_lasting(result);
  return status;
}

void Context::release(void* memory) {
  driver_.cuCtxPushCurrent(context_);
  driver_.cuMemFree(address(memory));
  CUcontext popped = nullptr;
  driver_.cuCtxPopCurrent(&popped);
}

Status Context::told(CUresult result, const char* what) {
  Status status = check(driver_, result, what);
  // What a kernel did wrong shows at whatever call comes next.
  status.late = is_lasting(result) && !sync_;
  return status;
}

Status Context::launch_pointers(const std::string& kernel, const Launch& how, void** args,
                                const int (&bytes)[kMaxParameters]) {
  CUfunction function = nullptr;
  Status status = modules_.find(kernel, static_cast<int>(how.shared_bytes), bytes, &function);
  if (!status.ok) return status;
  CUlaunchAttribute cluster{};
  cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  cluster.value.clusterDim = {how.cluster, 1, 1};
  CUlaunchConfig config{};
  config.gridDimX = how.grid.x, config.gridDimY = how.grid.y, config.gridDimZ = how.grid.z;
  config.blockDimX = how.threads, config.blockDimY = 1, config.blockDimZ = 1;
  config.sharedMemBytes = how.shared_bytes;
  config.hStream = stream_;
  config.attrs = &cluster;
  config.numAttrs = how.cluster > 1 ? 1 : 0;
  status = told(driver_.cuLaunchKernelEx(&config, function, args, nullptr), kernel.c_str());
  if (status.ok && sync_) status = told(driver_.cuStreamSynchronize(stream_), kernel.c_str());
  return status;
}

Status Context::workspace_of(int64_t bytes, void** out, Slot slot) {
  const auto i = static_cast<size_t>(slot);
  if (bytes > slot_bytes_[i]) {
    if (workspace_[i] != nullptr) {
      // Kernels may still use it; happens a few times in a process.
      const Status status = told(driver_.cuStreamSynchronize(stream_), "working memory");
      if (!status.ok) return status;
      driver_.cuMemFree(address(workspace_[i]));
      workspace_bytes_ -= slot_bytes_[i];
      workspace_[i] = nullptr;
      slot_bytes_[i] = 0;
    }
    const int64_t size = (bytes + kWorkspaceUnit - 1) / kWorkspaceUnit * kWorkspaceUnit;
    CUdeviceptr memory = 0;
    CUresult result = driver_.cuMemAlloc(&memory, static_cast<size_t>(size));
    if (result == CUDA_ERROR_OUT_OF_MEMORY && make_room_) {
      // Kernels may still use what is given back.
      const Status status = told(driver_.cuStreamSynchronize(stream_), "working memory");
      if (!status.ok) return status;
      make_room_();
      result = driver_.cuMemAlloc(&memory, static_cast<size_t>(size));
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY) return no_room(size);
    const Status status = told(result, "working memory");
    if (!status.ok) return status;
    workspace_[i] = reinterpret_cast<void*>(memory);
    ++workspace_moves_;
    slot_bytes_[i] = size;
    workspace_bytes_ += size;
  }
  *out = workspace_[i];
  return {};
}

Status Context::no_room(int64_t bytes) const {
  size_t free = 0, total = 0;
  driver_.cuMemGetInfo(&free, &total);
  return fail(
      "no room for %lld MiB of working memory: of the GPU's %lld MiB %lld are free, %lld are working memory, and "
      "tensors or other programs hold the rest. Take smaller batches; the device can still be used.",
      static_cast<long long>(bytes >> 20), static_cast<long long>(total >> 20), static_cast<long long>(free >> 20),
      static_cast<long long>(workspace_bytes_ >> 20));
}

Status Context::check_range(const char* op, const char* what, const int32_t* values, int64_t n, int64_t limit,
                            const char* rule, int32_t least) {
  if (n == 0) return {};
  if (expected_.size() - kept_ >= kMostExpected && !recording_) {
    const Status status = wait();
    if (!status.ok) return status;
  }
  const CheckRangeParams p{values, fault_, n, limit, least, expect({{op, what, rule, limit, Got::kInt}})};
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((n + 255) / 256, 1024));
  return launch(kCheckRange, {{blocks}, 256}, p);
}

int32_t Context::expect_fault(const char* op, std::string text, Got got) {
  return expect({{op, nullptr, std::move(text), 0, got}});
}

int32_t Context::expect_faults(const char* op, const std::vector<std::string>& texts) {
  std::vector<Expected> faults;
  faults.reserve(texts.size());
  for (const std::string& text : texts) faults.push_back({op, nullptr, text, 0, Got::kInt});
  return expect(faults);
}

int32_t Context::expect(const std::vector<Expected>& faults) {
  may_fault_ = true;
  auto found = expected_.end();
  // Graphs of like steps hold like numbers, so that their list stays short.
  if (recording_) found = std::search(expected_.begin(), expected_.end(), faults.begin(), faults.end());
  const auto number = static_cast<int32_t>(found - expected_.begin()) + 1;
  if (found == expected_.end()) expected_.insert(found, faults.begin(), faults.end());
  if (recording_) kept_ = expected_.size();
  return number;
}

namespace {

struct Graph {
  const Driver& driver;
  CUstream stream;
  CUgraphExec exec = nullptr;
  int64_t workspace_moves = 0;

  Graph(const Driver& of, CUstream on) : driver(of), stream(on) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (exec == nullptr) return;
    driver.cuStreamSynchronize(stream);  // it may still run
    driver.cuGraphExecDestroy(exec);
  }
};

}  // namespace

Status Context::record_graph(CUgraphExec* exec, const std::function<Status()>& enqueue) {
  Status status = wait();  // numbers since the last wait go, those of the graph stay
  if (!status.ok) return status;
  CUgraph graph = nullptr;
  if (driver_.cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_RELAXED) != CUDA_SUCCESS) return {};
  recording_ = true;
  status = enqueue();
  recording_ = false;
  const CUresult ended = driver_.cuStreamEndCapture(stream_, &graph);
  if (status.ok && ended == CUDA_SUCCESS && driver_.cuGraphInstantiate(exec, graph, 0) != CUDA_SUCCESS) *exec = nullptr;
  if (graph != nullptr) driver_.cuGraphDestroy(graph);
  return status;
}

Status Context::run_graph(std::shared_ptr<void>& compiled, const std::function<Status()>& enqueue) {
  if (sync_) return enqueue();
  auto graph = std::static_pointer_cast<Graph>(compiled);
  if (graph == nullptr || graph->workspace_moves != workspace_moves_) {
    compiled = graph = std::make_shared<Graph>(driver_, stream_);
    graph->workspace_moves = workspace_moves_;
    const Status status = record_graph(&graph->exec, enqueue);
    if (!status.ok) return status;
  }
  may_fault_ = true;
  return graph->exec == nullptr ? enqueue() : told(driver_.cuGraphLaunch(graph->exec, stream_), "replay");
}

Status Context::copy_in(void* to, const void* host, int64_t bytes) {
  for (int64_t done = 0; done < bytes; done += kStagingBytes) {
    const auto part = static_cast<size_t>(std::min(kStagingBytes, bytes - done));
    Staging& staging = staging_[next_staging_];
    next_staging_ ^= 1;
    Status status = told(driver_.cuEventSynchronize(staging.free), "copy to the device");
    if (!status.ok) return status;
    memcpy(staging.memory, static_cast<const char*>(host) + done, part);
    status =
        told(driver_.cuMemcpyHtoDAsync(address(to) + static_cast<CUdeviceptr>(done), staging.memory, part, stream_),
             "copy to the device");
    if (status.ok) status = told(driver_.cuEventRecord(staging.free, stream_), "copy to the device");
    if (!status.ok) return status;
  }
  return {};
}

Status Context::copy_out(void* host, const void* from, int64_t bytes) {
  // While one half travels, the other is copied to its place.
  int64_t sent = 0, arrived = 0;
  size_t parts[2] = {};
  int turn = 0;
  while (arrived < bytes) {
    while (sent < bytes && parts[turn] == 0) {
      const auto part = static_cast<size_t>(std::min(kStagingBytes, bytes - sent));
      Status status = told(driver_.cuMemcpyDtoHAsync(staging_[turn].memory,
                                                     address(from) + static_cast<CUdeviceptr>(sent), part, stream_),
                           "copy from the device");
      if (status.ok) status = told(driver_.cuEventRecord(staging_[turn].free, stream_), "copy from the device");
      if (!status.ok) return status;
      parts[turn] = part;
      sent += static_cast<int64_t>(part);
      turn ^= 1;
    }
    const int oldest = parts[turn] != 0 ? turn : turn ^ 1;
    const Status status = told(driver_.cuEventSynchronize(staging_[oldest].free), "copy from the device");
    if (!status.ok) return status;
    memcpy(static_cast<char*>(host) + arrived, staging_[oldest].memory, parts[oldest]);
    arrived += static_cast<int64_t>(parts[oldest]);
    parts[oldest] = 0;
    turn = oldest;
  }
  return {};
}

Status Context::copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0 || to == from) return {};
  return told(driver_.cuMemcpyDtoDAsync(address(to), address(from), static_cast<size_t>(bytes), stream_), "copy");
}

Status Context::fill_bytes(void* to, int value, int64_t bytes) {
  if (bytes == 0) return {};
  return told(
      driver_.cuMemsetD8Async(address(to), static_cast<unsigned char>(value), static_cast<size_t>(bytes), stream_),
      "fill");
}

Status Context::wait() {
  if (may_fault_) {
    const Status status =
        told(driver_.cuMemcpyDtoHAsync(host_fault_, address(fault_), sizeof(Fault), stream_), "wait for the device");
    if (!status.ok) return status;
  }
  Status status = told(driver_.cuStreamSynchronize(stream_), "wait for the device");
  if (status.ok && may_fault_) status = tell_fault();
  return status;
}

Status Context::mark(int which) { return told(driver_.cuEventRecord(marks_[which], stream_), "noting the time"); }

Status Context::between_marks(double* ms) {
  float elapsed = 0;
  Status status = told(driver_.cuEventSynchronize(marks_[1]), "noting the time");
  if (status.ok) status = told(driver_.cuEventElapsedTime(&elapsed, marks_[0], marks_[1]), "noting the time");
  *ms = elapsed;
  return status;
}

Status Context::tell_fault() {
  Status status{};
  if (host_fault_->number != 0) {
    const Expected& e = expected_[static_cast<size_t>(host_fault_->number - 1)];
    const auto value = static_cast<uint32_t>(host_fault_->place & 0xffffffffu);
    const auto index = static_cast<long long>(host_fault_->place >> 32);
    const char* text = e.text.c_str();
    if (e.what != nullptr) {
      char rule[64];
      snprintf(rule, sizeof rule, text, static_cast<long long>(e.limit));
      status = fail("%s: %s must be %s, got %d at index %lld", e.op, e.what, rule, static_cast<int32_t>(value), index);
    } else if (host_fault_->place == kNoPlace) {
      status = fail("%s: %s", e.op, text);
    } else if (e.got == Got::kInt) {
      status = fail("%s: %s, got %d at index %lld", e.op, text, static_cast<int32_t>(value), index);
    } else if (e.got == Got::kFloat) {
      float number;
      memcpy(&number, &value, sizeof number);
      status = fail("%s: %s, got %g at index %lld", e.op, text, static_cast<double>(number), index);
    } else {
      status = fail("%s: %s, got others in row %lld", e.op, text, index);
    }
    *host_fault_ = {0, 0, kNoPlace};
    const Status reset =
        told(driver_.cuMemcpyHtoDAsync(address(fault_), host_fault_, sizeof(Fault), stream_), "wait for the device");
    if (!reset.ok) return reset;
  }
  expected_.resize(kept_);
  may_fault_ = false;
  return status;
}

}  // namespace westwind
