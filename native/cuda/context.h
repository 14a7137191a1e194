// One GPU of one environment: context, stream, kernels, working memory. Everything but allocate and release is called
// from the device's stream thread.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "module.h"
#include "params/fault.h"

namespace westwind {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

struct Launch {
  Dim grid;
  unsigned threads;
  unsigned shared_bytes = 0;  // dynamic
  unsigned cluster = 1;       // blocks along x
};

// What find() tells about a GPU.
struct DeviceFacts {
  std::string name;
  int arch;  // 80, 86, 89, 90, …
  int sms, shared_bytes, l2_bytes, clock_khz, memory_clock_khz, memory_bus_bits;
  int64_t memory_bytes;
};
Status read_facts(const Driver& driver, CUdevice device, DeviceFacts* out);

class Context {
 public:
  // Null, and a sentence in `why`, when the device is not there or the addon has no kernels for it.
  static std::unique_ptr<Context> open(int ordinal, std::string* why);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Driver& driver() const { return driver_; }
  const DeviceFacts& facts() const { return facts_; }
  CUstream stream() const { return stream_; }
  void make_current() { driver_.cuCtxSetCurrent(context_); }

  // From any thread. Null where there is no room; what a kernel did wrong before may show here too.
  Status allocate(int64_t bytes, void** out);
  void release(void* memory);

  // Enqueues a kernel. Each argument is passed as it is: by layout, so it must be the struct or scalar the kernel has.
  template <class... Args>
  Status launch(const std::string& kernel, const Launch& how, const Args&... args) {
    static_assert(sizeof...(Args) <= kMaxParameters);
    const void* pointers[] = {&args..., nullptr};
    const int bytes[kMaxParameters] = {static_cast<int>(sizeof(Args))...};
    return launch_pointers(kernel, how, const_cast<void**>(pointers), bytes);
  }

  // Working memory for the op at hand: valid until the next op asks, which the stream runs later. An op that calls
  // other ops takes kOuter, which those it calls leave alone. Where there is no room, even after `make_room`, the
  // status says what there is; the device can still be used.
  void on_no_room(std::function<void()> make_room) { make_room_ = std::move(make_room); }
  enum class Slot { kOp, kOuter };
  template <class T>
  Status workspace(int64_t bytes, T** out, Slot slot = Slot::kOp) {
    void* memory = nullptr;
    const Status status = workspace_of(bytes, &memory, slot);
    *out = static_cast<T*>(memory);
    return status;
  }
  int64_t workspace_bytes() const { return workspace_bytes_; }

  // Runs `enqueue`, which launches kernels that have run before and nothing else, as a graph: recorded the first time,
  // and again when working memory has moved since; then one launch. Where the driver records no graph it just runs.
  Status run_graph(std::shared_ptr<void>& compiled, const std::function<Status()>& enqueue);

  // Enqueues a test of n numbers that stay on the device. Where one is not in least .. limit − 1, the next wait fails,
  // naming op, `what`, number and place ("what must be <rule>, got …", a %lld in the rule being limit); and kernels
  // that are given the fault cell until then do nothing.
  static constexpr const char* kCheckRange = "check_range";
  Status check_range(const char* op, const char* what, const int32_t* values, int64_t n, int64_t limit,
                     const char* rule = "0 <= row < %lld", int32_t least = 0);
  // A fault that a kernel itself reports (see params/fault.h): returns the number the kernel gives for it. The message
  // is `text`, then what was got, where the kernel tells a place: ", got VALUE at index INDEX".
  enum class Got { kInt, kFloat, kRow };  // kFloat: the value is the bits of an f32; kRow: "got others in row INDEX"
  int32_t expect_fault(const char* op, std::string text, Got got = Got::kInt);
  // Several at once: the number of the first; the others follow.
  int32_t expect_faults(const char* op, const std::vector<std::string>& texts);
  Fault* fault() const { return fault_; }

  Status copy_in(void* to, const void* host, int64_t bytes);
  Status copy_out(void* host, const void* from, int64_t bytes);
  Status copy(void* to, const void* from, int64_t bytes);
  Status fill_bytes(void* to, int value, int64_t bytes);
  Status wait();
  Status mark(int which);
  Status between_marks(double* ms);

 private:
  Context(const Driver& driver, DeviceFacts facts) : driver_(driver), facts_(std::move(facts)), modules_(driver) {}
  struct Staging {
    void* memory = nullptr;
    CUevent free = nullptr;  // recorded after the last copy out of it
  };
  // What a fault number means.
  struct Expected {
    const char* op;
    const char* what;  // of check_range; null: `text` says all
    std::string text;  // of check_range: the rule
    int64_t limit;
    Got got;
    bool operator==(const Expected&) const = default;
  };

  Status prepare(CUdevice device);
  Status launch_pointers(const std::string& kernel, const Launch& how, void** args, const int (&bytes)[kMaxParameters]);
  Status told(CUresult result, const char* what);
  Status workspace_of(int64_t bytes, void** out, Slot slot);
  Status no_room(int64_t bytes) const;
  Status tell_fault();
  int32_t expect(const std::vector<Expected>& faults);
  Status record_graph(CUgraphExec* exec, const std::function<Status()>& enqueue);

  const Driver& driver_;
  const DeviceFacts facts_;
  Modules modules_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  CUevent marks_[2] = {};
  Staging staging_[2];
  int next_staging_ = 0;
  void* workspace_[2] = {};  // by slot
  int64_t slot_bytes_[2] = {};
  std::atomic<int64_t> workspace_bytes_{0};
  int64_t workspace_moves_ = 0;  // times that working memory got another place
  std::function<void()> make_room_;
  Fault* fault_ = nullptr;       // on the device
  Fault* host_fault_ = nullptr;  // pinned
  // What fault numbers mean, which are places here from 1: those that graphs hold, for good, then those of the kernels
  // since the last wait.
  std::vector<Expected> expected_;
  size_t kept_ = 0;         // how many of expected_ graphs hold
  bool recording_ = false;  // a graph
  bool may_fault_ = false;  // a test was enqueued since the last wait
  bool sync_ = false;       // WESTWIND_SYNC=1
};

}  // namespace westwind
