#include "device_wrap.h"

#include <new>

#include "cpu_backend.h"
#include "cuda_backend.h"
#include "tensor_wrap.h"

namespace westwind {
namespace {

// What travels from the stream thread to the JavaScript thread.
struct Settlement {
  Napi::Promise::Deferred deferred;
  std::unique_ptr<char[]> bytes;
  int64_t size;
  std::string error;
  Napi::ObjectReference keep;  // the device object, alive until the promise is settled
  std::function<void(Napi::Env)> finished;
};

void settle(Napi::Env env, Napi::Function, Settlement* raw) {
  const std::unique_ptr<Settlement> settlement(raw);
  if (env == nullptr) return;
  const Napi::HandleScope scope(env);
  settlement->finished(env);
  if (!settlement->error.empty()) {
    settlement->deferred.Reject(Napi::Error::New(env, settlement->error).Value());
  } else if (settlement->bytes) {
    const auto size = static_cast<size_t>(settlement->size);
    try {  // the constructor throws where there is no memory; napi_create_arraybuffer ends the process
      const auto make = env.Global().Get("ArrayBuffer").As<Napi::Function>();
      auto buffer = make.New({Napi::Number::New(env, static_cast<double>(size))}).As<Napi::ArrayBuffer>();
      if (size > 0) memcpy(buffer.Data(), settlement->bytes.get(), size);  // an empty buffer may be null
      settlement->deferred.Resolve(buffer);
    } catch (const Napi::Error& error) {
      settlement->deferred.Reject(error.Value());
    }
  } else {
    settlement->deferred.Resolve(env.Undefined());
  }
}

Isa find_isa(Napi::Env env, const std::string& name) {
  std::string choices;
  Isa best = Isa::kPortable;
  for (const Isa isa : kIsas) {
    if (!available(isa)) continue;
    best = isa;
    choices += std::string(choices.empty() ? "" : ", ") + name_of(isa);
    if (name == name_of(isa)) return isa;
  }
  if (!name.empty()) {
    throw Napi::Error::New(env, "instruction set '" + name + "' is not available here; there are: " + choices);
  }
  return best;
}

// new Device('cpu', isa, threads)
std::unique_ptr<Backend> open_cpu(const Napi::CallbackInfo& info) {
  const std::string isa = info[1].IsString() ? info[1].As<Napi::String>().Utf8Value() : "";
  const double threads = info[2].IsNumber() ? info[2].As<Napi::Number>().DoubleValue() : default_threads();
  if (!(threads >= 1 && threads <= 4096)) throw Napi::Error::New(info.Env(), "threads must be 1 to 4096");
  return make_cpu_backend(find_isa(info.Env(), isa), static_cast<int>(threads));
}

// new Device('cuda', '', ordinal)
std::unique_ptr<Backend> open_cuda(const Napi::CallbackInfo& info) {
  const double ordinal = info[2].IsNumber() ? info[2].As<Napi::Number>().DoubleValue() : 0;
  if (!(ordinal >= 0 && ordinal <= 1024)) throw Napi::Error::New(info.Env(), "no such GPU");
  std::string why;
  auto backend = make_cuda_backend(static_cast<int>(ordinal), &why);
  if (!backend) throw Napi::Error::New(info.Env(), why);
  return backend;
}

}  // namespace

DeviceWrap::DeviceWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceWrap>(info) {
  const Napi::Env env = info.Env();
  const std::string kind = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  if (kind == "cpu") {
    device = std::make_shared<Device>(open_cpu(info));
  } else if (kind == "cuda") {
    device = std::make_shared<Device>(open_cuda(info));
  } else {
    throw Napi::Error::New(env, "no such device: '" + kind + "'");
  }
  settle_ = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "westwind",
                                          0, 1, [gone = settle_gone_](Napi::Env) { *gone = true; });
  settle_.Unref(env);
  Napi::Object self = info.This().As<Napi::Object>();
  self.TypeTag(&kDeviceTag);
  const Facts facts = device->backend->facts();
  self.Set("isa", facts.kind);
  self.Set("units", static_cast<double>(facts.units));
  self.Set("product", facts.name);
  self.Set("capacity", static_cast<double>(device->backend->capacity()));
}

DeviceWrap::~DeviceWrap() {
  if (device && !*settle_gone_) settle_.Release();
}

Napi::Value DeviceWrap::wait(Napi::Env env, DeviceWrap& device, const JobLabel& label, int64_t bytes,
                             std::function<Status(Backend&, void*)> work) {
  std::unique_ptr<char[]> copy(bytes < 0 ? nullptr : new (std::nothrow) char[static_cast<size_t>(bytes)]);
  if (bytes >= 0 && copy == nullptr)
    throw Napi::RangeError::New(env, "no memory for a copy of " + std::to_string(bytes) + " bytes");
  if (device.device->stream.recording()) throw Napi::Error::New(env, "waiting cannot be recorded");
  auto deferred = Napi::Promise::Deferred::New(env);
  const Napi::Promise promise = deferred.Promise();
  auto* settlement = new Settlement{deferred, std::move(copy), bytes, {}, Napi::Persistent(device.Value()), nullptr};
  DeviceWrap* self = &device;
  settlement->finished = [self](Napi::Env after) {
    if (--self->waiting_ == 0) self->settle_.Unref(after);
  };
  if (device.waiting_++ == 0) device.settle_.Ref(env);
  Napi::ThreadSafeFunction function = device.settle_;
  function.Acquire();  // so that dispose() does not close it under a promise that still waits
  device.device->stream.enqueue_wait(
      label,
      [settlement, work = std::move(work)](Backend& backend) {
        return work ? work(backend, settlement->bytes.get()) : Status{};
      },
      [settlement, function](const std::string& error) {
        settlement->error = error;
        // Fails only when the environment is going away; then nobody waits, and handles must not be touched from here.
        function.NonBlockingCall(settlement, settle);
        function.Release();
      });
  return promise;
}

Napi::Value DeviceWrap::Empty(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!device) throw Napi::Error::New(env, "the device is disposed");
  const int64_t dtype = info[0].As<Napi::Number>().Int64Value();
  const double numel = info[1].As<Napi::Number>().DoubleValue();
  const int64_t tag = info[2].As<Napi::Number>().Int64Value();
  if (dtype < 0 || dtype > 2 || tag < 0 || tag >= kTags || !(numel >= 0 && numel <= 1e14)) {
    throw Napi::TypeError::New(env, "empty(dtype, numel, tag): out of range");
  }
  const DType type = static_cast<DType>(dtype);
  const int64_t count = static_cast<int64_t>(numel);
  std::string fault;
  auto storage = Storage::create(device, count * size_of(type), static_cast<Tag>(tag), &fault);
  if (!fault.empty()) throw Napi::Error::New(env, fault);
  if (!storage) {
    throw Napi::RangeError::New(env, device->allocator.out_of_memory(count * size_of(type), static_cast<Tag>(tag)));
  }
  return TensorWrap::create(env, this, std::move(storage), 0, count, type);
}

Napi::Value DeviceWrap::Synchronize(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  return wait(info.Env(), *this, {"synchronize"}, -1, nullptr);
}

// record(): what ops enqueue from here on joins a recording, until endRecord(), which gives its number.
void DeviceWrap::Record(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  if (device->stream.recording()) throw Napi::Error::New(info.Env(), "a recording is under way");
  device->stream.record(std::make_shared<Recording>());
}

Napi::Value DeviceWrap::EndRecord(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  const std::shared_ptr<Recording> made = device->stream.recording();
  if (!made) throw Napi::Error::New(info.Env(), "nothing is being recorded");
  device->stream.record(nullptr);
  const int64_t number = device->recordings.empty() ? 0 : device->recordings.rbegin()->first + 1;
  device->recordings[number] = made;
  return Napi::Number::New(info.Env(), static_cast<double>(number));
}

// replay(number): enqueues all of a recording, as one job.
void DeviceWrap::Replay(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  const auto found = device->recordings.find(info[0].IsNumber() ? info[0].As<Napi::Number>().Int64Value() : -1);
  if (found == device->recordings.end()) throw Napi::Error::New(info.Env(), "there is no such recording");
  if (device->stream.recording()) throw Napi::Error::New(info.Env(), "a recording cannot be part of another");
  device->stream.enqueue({"replay", {{"ops", static_cast<int64_t>(found->second->jobs.size())}}},
                         [recording = found->second](Backend& backend) {
                           return backend.run_again(recording->jobs, recording->compiled);
                         });
}

// forget(number): gives back what a recording held.
void DeviceWrap::Forget(const Napi::CallbackInfo& info) {
  if (!device || !info[0].IsNumber()) return;
  const auto found = device->recordings.find(info[0].As<Napi::Number>().Int64Value());
  if (found == device->recordings.end()) return;
  found->second->storages.clear();
  device->stream.enqueue_always([recording = found->second](Backend&) { recording->compiled.reset(); });
  device->recordings.erase(found);
}

// mark(which): enqueues noting the time as mark 0 or 1.
void DeviceWrap::Mark(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  const int which = info[0].IsNumber() && info[0].As<Napi::Number>().DoubleValue() == 1 ? 1 : 0;
  device->stream.enqueue({"mark"}, [which](Backend& backend) { return backend.mark(which); });
}

// betweenMarks(): a promise for the milliseconds from mark 0 to mark 1, as one f64.
Napi::Value DeviceWrap::BetweenMarks(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  return wait(info.Env(), *this, {"mark"}, sizeof(double),
              [](Backend& backend, void* to) { return backend.between_marks(static_cast<double*>(to)); });
}

// startTiming(): from here on ops are timed one by one.
void DeviceWrap::StartTiming(const Napi::CallbackInfo& info) {
  if (!device) throw Napi::Error::New(info.Env(), "the device is disposed");
  device->stream.start_timing();
}

// endTiming(): what was timed, {label, enqueued, begin, end} each, in milliseconds since startTiming().
Napi::Value DeviceWrap::EndTiming(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!device) throw Napi::Error::New(env, "the device is disposed");
  const std::vector<TimedJob> jobs = device->stream.end_timing();
  Napi::Array out = Napi::Array::New(env, jobs.size());
  for (uint32_t i = 0; i < jobs.size(); ++i) {
    Napi::Object job = Napi::Object::New(env);
    job.Set("label", jobs[i].label.text());
    job.Set("enqueued", static_cast<double>(jobs[i].enqueued) / 1e6);
    job.Set("begin", static_cast<double>(jobs[i].begin) / 1e6);
    job.Set("end", static_cast<double>(jobs[i].end) / 1e6);
    out.Set(i, job);
  }
  return out;
}

Napi::Value DeviceWrap::Stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!device) throw Napi::Error::New(env, "the device is disposed");
  const MemoryStats stats = device->allocator.stats();
  auto out = Napi::Object::New(env), live = Napi::Object::New(env), peak = Napi::Object::New(env);
  for (int i = 0; i < kTags; ++i) {
    live.Set(name_of(static_cast<Tag>(i)), static_cast<double>(stats.live[i]));
    peak.Set(name_of(static_cast<Tag>(i)), static_cast<double>(stats.peak[i]));
  }
  out.Set("live", live);
  out.Set("peak", peak);
  out.Set("liveBytes", static_cast<double>(stats.live_bytes));
  out.Set("peakBytes", static_cast<double>(stats.peak_bytes));
  out.Set("workspaceBytes", static_cast<double>(device->backend->workspace_bytes()));
  out.Set("reservedBytes", static_cast<double>(stats.reserved_bytes));
  out.Set("liveTensors", static_cast<double>(stats.live_blocks));
  out.Set("deviceAllocations", static_cast<double>(stats.device_allocations));
  out.Set("forgottenTensors", static_cast<double>(device->forgotten));
  return out;
}

void DeviceWrap::ResetPeak(const Napi::CallbackInfo&) {
  if (device) device->allocator.reset_peak();
}

void DeviceWrap::Dispose(const Napi::CallbackInfo&) {
  if (!device) return;
  for (auto& [number, recording] : device->recordings) {
    recording->storages.clear();  // they hold the device
    device->stream.enqueue_always([recording = recording](Backend&) { recording->compiled.reset(); });
  }
  device->recordings.clear();
  device->stream.record(nullptr);
  device.reset();  // tensors that are still alive keep the memory until they go
  settle_.Release();
}

Napi::Function define_device(Napi::Env env) {
  return DeviceWrap::DefineClass(
      env, "Device",
      {DeviceWrap::InstanceMethod<&DeviceWrap::Empty>("empty"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Synchronize>("synchronize"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Record>("record"),
       DeviceWrap::InstanceMethod<&DeviceWrap::EndRecord>("endRecord"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Replay>("replay"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Forget>("forget"), DeviceWrap::InstanceMethod<&DeviceWrap::Mark>("mark"),
       DeviceWrap::InstanceMethod<&DeviceWrap::BetweenMarks>("betweenMarks"),
       DeviceWrap::InstanceMethod<&DeviceWrap::StartTiming>("startTiming"),
       DeviceWrap::InstanceMethod<&DeviceWrap::EndTiming>("endTiming"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Stats>("stats"),
       DeviceWrap::InstanceMethod<&DeviceWrap::ResetPeak>("resetPeak"),
       DeviceWrap::InstanceMethod<&DeviceWrap::Dispose>("dispose")});
}

}  // namespace westwind
