#include "tensor_wrap.h"

#include <string.h>

#include <new>

#include "load.h"

namespace westwind {
namespace {

constexpr const char* kUseEmpty = "tensors are made by device.empty() and tensor.view()";

struct Making {
  DeviceWrap* device;
  std::shared_ptr<Storage> storage;
  int64_t offset, numel;
  DType dtype;
};

int64_t integer(const Napi::CallbackInfo& info, size_t i, int64_t low, int64_t high) {
  const double value = info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : -1;
  if (!(value >= static_cast<double>(low) && value <= static_cast<double>(high))) {
    throw Napi::RangeError::New(info.Env(), "argument " + std::to_string(i) + " must be " + std::to_string(low) +
                                                " to " + std::to_string(high));
  }
  return static_cast<int64_t>(value);
}

}  // namespace

TensorWrap::TensorWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorWrap>(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), kUseEmpty);
  auto& making = *info[0].As<Napi::External<Making>>().Data();
  storage = std::move(making.storage);
  offset = making.offset;
  numel = making.numel;
  dtype = making.dtype;
  device_wrap_ = Napi::Persistent(making.device->Value());
  info.This().As<Napi::Object>().TypeTag(&kTensorTag);
}

TensorWrap::~TensorWrap() {
  if (storage) ++storage->device->forgotten;
}

Napi::Object TensorWrap::create(Napi::Env env, DeviceWrap* device, std::shared_ptr<Storage> storage, int64_t offset,
                                int64_t numel, DType dtype) {
  Making making{device, std::move(storage), offset, numel, dtype};
  return env.GetInstanceData<AddonData>()->tensor.New({Napi::External<Making>::New(env, &making)});
}

void TensorWrap::check_alive() const {
  if (!storage) throw Napi::Error::New(Env(), "the tensor is disposed");
}

// view(offset, numel): elements [offset, offset + numel) of this tensor, over the same storage.
Napi::Value TensorWrap::View(const Napi::CallbackInfo& info) {
  check_alive();
  const int64_t first = integer(info, 0, 0, numel);
  const int64_t count = integer(info, 1, 0, numel - first);
  return create(info.Env(), DeviceWrap::Unwrap(device_wrap_.Value()), storage, offset + first, count, dtype);
}

// read(): a promise for an ArrayBuffer with a copy of the elements.
Napi::Value TensorWrap::Read(const Napi::CallbackInfo& info) {
  check_alive();
  DeviceWrap& device = *DeviceWrap::Unwrap(device_wrap_.Value());
  if (!device.device) throw Napi::Error::New(info.Env(), "the device is disposed");
  const int64_t bytes = numel * size_of(dtype);
  return DeviceWrap::wait(info.Env(), device, {"read"}, bytes, [from = data(), bytes](Backend& backend, void* to) {
    return backend.copy_out(to, from, bytes);
  });
}

// write(view): enqueues a copy of the bytes of a typed array, which must be exactly as many as the tensor has.
void TensorWrap::Write(const Napi::CallbackInfo& info) {
  check_alive();
  if (!info[0].IsTypedArray()) throw Napi::TypeError::New(info.Env(), "write() takes a typed array");
  const auto array = info[0].As<Napi::TypedArray>();
  const int64_t bytes = numel * size_of(dtype);
  if (static_cast<int64_t>(array.ByteLength()) != bytes)
    throw Napi::RangeError::New(info.Env(), "write(): wrong length");
  if (storage->device->stream.recording()) throw Napi::Error::New(info.Env(), "write() cannot be recorded");
  const char* source = static_cast<const char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  const std::shared_ptr<char[]> copy(new (std::nothrow) char[static_cast<size_t>(bytes)]);
  if (copy == nullptr)
    throw Napi::RangeError::New(info.Env(), "no memory for a copy of " + std::to_string(bytes) + " bytes");
  if (bytes > 0) memcpy(copy.get(), source, static_cast<size_t>(bytes));  // an empty array may be null
  storage->device->stream.enqueue({"write", {{"bytes", bytes}}}, [copy, to = data(), bytes](Backend& backend) {
    return backend.copy_in(to, copy.get(), bytes);
  });
}

// load(path, byteOffset, fileType): enqueues reading this tensor's elements from a file.
void TensorWrap::Load(const Napi::CallbackInfo& info) {
  check_alive();
  if (!info[0].IsString()) throw Napi::TypeError::New(info.Env(), "load() takes a path");
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  if (storage->device->stream.recording()) throw Napi::Error::New(info.Env(), "load() cannot be recorded");
  const int64_t from = integer(info, 1, 0, int64_t{1} << 52);
  const auto type = static_cast<FileType>(integer(info, 2, 0, 3));
  storage->device->stream.enqueue({"load"},
                                  [path, from, type, n = numel, to = data(), dtype = dtype](Backend& backend) {
                                    return load(backend, path, from, n, type, to, dtype);
                                  });
}

void TensorWrap::Dispose(const Napi::CallbackInfo&) {
  storage.reset();
  device_wrap_.Reset();
}

Napi::Function define_tensor(Napi::Env env) {
  return TensorWrap::DefineClass(
      env, "TensorHandle",
      {TensorWrap::InstanceMethod<&TensorWrap::View>("view"), TensorWrap::InstanceMethod<&TensorWrap::Read>("read"),
       TensorWrap::InstanceMethod<&TensorWrap::Write>("write"), TensorWrap::InstanceMethod<&TensorWrap::Load>("load"),
       TensorWrap::InstanceMethod<&TensorWrap::Dispose>("dispose")});
}

}  // namespace westwind
