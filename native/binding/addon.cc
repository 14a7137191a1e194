#include "addon.h"

#include "isa.h"

namespace westwind {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData;
  const Napi::Function tensor = define_tensor(env);
  data->tensor = Napi::Persistent(tensor);
  env.SetInstanceData(data);
  exports.Set("Device", define_device(env));
  auto isas = Napi::Array::New(env);
  for (const Isa isa : kIsas) {
    if (available(isa)) isas.Set(isas.Length(), name_of(isa));
  }
  exports.Set("isas", isas);
  export_ops(env, exports);
  return exports;
}

}  // namespace
}  // namespace westwind

static Napi::Object InitWestwind(Napi::Env env, Napi::Object exports) { return westwind::init(env, exports); }
NODE_API_MODULE(westwind, InitWestwind)
