// Arguments of a call from JavaScript. TypeScript has explained what can be wrong; here memory is protected: a handle
// must be ours and alive, have the dtype, and hold the elements that the sizes ask for.
#pragma once
#include <vector>

#include "tensor_wrap.h"

namespace westwind {

struct TensorRef {
  char* data = nullptr;  // null: the optional tensor is absent
  int64_t numel = 0;
  DType dtype = DType::kF32;
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

class Args {
 public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info) {}

  // Argument i, at least `elements` of it. The first tensor seen decides the device; the others must be there too.
  TensorRef tensor(size_t i, int64_t elements);
  TensorRef tensor(size_t i, int64_t elements, DType dtype);
  TensorRef optional(size_t i, int64_t elements, DType dtype);  // null or undefined: absent
  TensorRef read_tensor(Napi::Value value, size_t i, int64_t elements);
  Napi::Array array(size_t i) const;
  int64_t size(size_t i) const;    // 0 .. 2^47
  int32_t size32(size_t i) const;  // 0 .. 2^31 - 1
  double number(size_t i) const;
  bool flag(size_t i) const;
  Device& device() const;

 private:
  [[noreturn]] void wrong(size_t i, const char* what) const;
  const Napi::CallbackInfo& info_;
  Device* device_ = nullptr;
};

TensorWrap& unwrap_tensor(Napi::Env env, Napi::Value value, size_t i);

}  // namespace westwind
