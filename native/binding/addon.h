// Per-environment state: each worker thread that loads the addon has its own.
#pragma once
#include <napi.h>

namespace westwind {

struct AddonData {
  Napi::FunctionReference tensor;
};

Napi::Function define_device(Napi::Env env);
Napi::Function define_tensor(Napi::Env env);
void export_ops(Napi::Env env, Napi::Object exports);

}  // namespace westwind
