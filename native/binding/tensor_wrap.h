#pragma once
#include "device_wrap.h"

namespace westwind {

// A contiguous piece of a storage. Made by device.empty() and tensor.view() only.
class TensorWrap : public Napi::ObjectWrap<TensorWrap> {
 public:
  explicit TensorWrap(const Napi::CallbackInfo& info);
  ~TensorWrap() override;

  static Napi::Object create(Napi::Env env, DeviceWrap* device, std::shared_ptr<Storage> storage, int64_t offset,
                             int64_t numel, DType dtype);

  char* data() const { return storage->data() + offset * size_of(dtype); }

  std::shared_ptr<Storage> storage;  // null after dispose()
  int64_t offset = 0, numel = 0;     // elements
  DType dtype = DType::kF32;

 private:
  friend Napi::Function define_tensor(Napi::Env env);
  Napi::Value View(const Napi::CallbackInfo& info);
  Napi::Value Read(const Napi::CallbackInfo& info);
  void Write(const Napi::CallbackInfo& info);
  void Load(const Napi::CallbackInfo& info);
  void Dispose(const Napi::CallbackInfo& info);
  void check_alive() const;

  Napi::ObjectReference device_wrap_;  // the settle function lives there
};

const napi_type_tag kTensorTag = {0x7c52a9e0d4136b8f, 0x16f8b3d97e2c4a50};

}  // namespace westwind
