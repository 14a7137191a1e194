#include "args.h"

namespace westwind {
namespace {
constexpr int64_t kMaxSize = int64_t{1} << 47;
}

void Args::wrong(size_t i, const char* what) const {
  throw Napi::TypeError::New(info_.Env(), "argument " + std::to_string(i) + " " + what);
}

TensorWrap& unwrap_tensor(Napi::Env env, Napi::Value value, size_t i) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTensorTag)) {
    throw Napi::TypeError::New(env, "argument " + std::to_string(i) + " is not a tensor handle");
  }
  TensorWrap& tensor = *TensorWrap::Unwrap(value.As<Napi::Object>());
  if (!tensor.storage) throw Napi::Error::New(env, "argument " + std::to_string(i) + " is disposed");
  return tensor;
}

TensorRef Args::read_tensor(Napi::Value value, size_t i, int64_t elements) {
  TensorWrap& tensor = unwrap_tensor(info_.Env(), value, i);
  Device* device = tensor.storage->device.get();
  if (device_ != nullptr && device != device_) wrong(i, "is on another device");
  device_ = device;
  if (const auto& recording = device->stream.recording()) recording->storages.push_back(tensor.storage);
  if (tensor.numel < elements) wrong(i, "has too few elements");
  return {tensor.data(), tensor.numel, tensor.dtype};
}

TensorRef Args::tensor(size_t i, int64_t elements) { return read_tensor(info_[i], i, elements); }

TensorRef Args::tensor(size_t i, int64_t elements, DType dtype) {
  const TensorRef ref = tensor(i, elements);
  if (ref.dtype != dtype) wrong(i, "has another dtype");
  return ref;
}

TensorRef Args::optional(size_t i, int64_t elements, DType dtype) {
  if (info_[i].IsNull() || info_[i].IsUndefined()) return {};
  return tensor(i, elements, dtype);
}

Napi::Array Args::array(size_t i) const {
  if (!info_[i].IsArray()) wrong(i, "is not an array");
  return info_[i].As<Napi::Array>();
}

int64_t Args::size(size_t i) const {
  const double value = number(i);
  if (!(value >= 0 && value <= static_cast<double>(kMaxSize)) ||
      value != static_cast<double>(static_cast<int64_t>(value))) {
    wrong(i, "is not a size");
  }
  return static_cast<int64_t>(value);
}

int32_t Args::size32(size_t i) const {
  const int64_t value = size(i);
  if (value > INT32_MAX) wrong(i, "is too large");
  return static_cast<int32_t>(value);
}

double Args::number(size_t i) const {
  if (!info_[i].IsNumber()) wrong(i, "is not a number");
  return info_[i].As<Napi::Number>().DoubleValue();
}

bool Args::flag(size_t i) const {
  if (!info_[i].IsBoolean()) wrong(i, "is not a boolean");
  return info_[i].As<Napi::Boolean>().Value();
}

Device& Args::device() const {
  if (device_ == nullptr) throw Napi::TypeError::New(info_.Env(), "no tensor says which device to use");
  return *device_;
}

}  // namespace westwind
