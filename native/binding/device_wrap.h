#pragma once
#include <functional>

#include "addon.h"
#include "device.h"

namespace westwind {

// new Device('cpu', isa, threads) or new Device('cuda', '', ordinal): the JavaScript side of a device.
class DeviceWrap : public Napi::ObjectWrap<DeviceWrap> {
 public:
  explicit DeviceWrap(const Napi::CallbackInfo& info);
  ~DeviceWrap() override;

  // A promise for work on the stream: bytes that `work` filled, or undefined for none. Rejects with the kept error.
  static Napi::Value wait(Napi::Env env, DeviceWrap& device, const JobLabel& label, int64_t bytes,
                          std::function<Status(Backend&, void*)> work);

  std::shared_ptr<Device> device;  // null after dispose()

 private:
  friend Napi::Function define_device(Napi::Env env);
  Napi::Value Empty(const Napi::CallbackInfo& info);
  Napi::Value Synchronize(const Napi::CallbackInfo& info);
  void Record(const Napi::CallbackInfo& info);
  Napi::Value EndRecord(const Napi::CallbackInfo& info);
  void Replay(const Napi::CallbackInfo& info);
  void Forget(const Napi::CallbackInfo& info);
  void Mark(const Napi::CallbackInfo& info);
  Napi::Value BetweenMarks(const Napi::CallbackInfo& info);
  void StartTiming(const Napi::CallbackInfo& info);
  Napi::Value EndTiming(const Napi::CallbackInfo& info);
  Napi::Value Stats(const Napi::CallbackInfo& info);
  void ResetPeak(const Napi::CallbackInfo& info);
  void Dispose(const Napi::CallbackInfo& info);

  Napi::ThreadSafeFunction settle_;  // keeps the process alive only while something waits
  // Whether the environment, going away, has deleted settle_: it does so before it deletes this.
  std::shared_ptr<bool> settle_gone_ = std::make_shared<bool>(false);
  int waiting_ = 0;
};

const napi_type_tag kDeviceTag = {0x3f1d0c5e8a7b4926, 0x9d2e61c4b8f07a35};

}  // namespace westwind
