#include "addon.h"

#include "cuda_backend.h"
#include "isa.h"
#ifdef WESTWIND_HAS_CUDA
#include "launch/gemm_config.h"
#endif

namespace westwind {
namespace {

#ifdef WESTWIND_HAS_CUDA
// gemmConfig(shape, arch, sms, sharedBytes): what gemm would run on such a GPU; needs none.
Napi::Value gemm_config(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) throw Napi::TypeError::New(env, "shape must be an object");
  const auto shape = info[0].As<Napi::Object>();
  const auto number = [&](const Napi::Value& value) {
    const double x = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0;
    if (!(x >= 1 && x <= 1 << 24)) throw Napi::RangeError::New(env, "sizes and facts of a GPU must be from 1 to 2^24");
    return static_cast<int>(x);
  };
  const auto size = [&](const char* name) { return number(shape.Get(name)); };
  const auto flag = [&](const char* name) { return shape.Get(name).ToBoolean().Value(); };
  const GemmShape s{size("M"),      size("N"),           size("K"),      flag("transA"),
                    flag("transB"), flag("tensorCores"), flag("ragged"), flag("f32Out")};
  const GemmConfig c = choose_gemm(s, number(info[1]), number(info[2]), number(info[3]));
  auto out = Napi::Object::New(env);
  out.Set("kernel", c.kernel);
  out.Set("blockM", c.block_m);
  out.Set("blockN", c.block_n);
  out.Set("blockK", c.block_k);
  out.Set("stages", c.stages);
  out.Set("threads", c.threads);
  out.Set("sharedBytes", c.shared_bytes);
  out.Set("chunk", static_cast<double>(c.chunk));
  out.Set("split", static_cast<double>(c.split));
  out.Set("cluster", c.cluster);
  return out;
}
#endif

// cuda(): what there is of CUDA, without opening anything that holds memory.
Napi::Value cuda(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int driver = 0;
  std::string why;
  const std::vector<CudaDevice> found = cuda_devices(&driver, &why);
  auto out = Napi::Object::New(env);
  auto list = Napi::Array::New(env, found.size());
  for (uint32_t i = 0; i < found.size(); ++i) {
    auto one = Napi::Object::New(env);
    one.Set("name", found[i].name);
    one.Set("arch", found[i].arch);
    one.Set("sms", found[i].sms);
    one.Set("memoryBytes", static_cast<double>(found[i].memory_bytes));
    one.Set("image", found[i].image);
    list.Set(i, one);
  }
  out.Set("devices", list);
  out.Set("driverVersion", driver);
  out.Set("missing", why);
  return out;
}

Napi::Array strings(Napi::Env env, const std::vector<std::string>& list) {
  auto out = Napi::Array::New(env, list.size());
  for (uint32_t i = 0; i < list.size(); ++i) out.Set(i, list[i]);
  return out;
}

Napi::Array cuda_images_of(Napi::Env env) {
  auto out = Napi::Array::New(env);
  for (const CudaImage& image : cuda_images()) {
    auto one = Napi::Object::New(env);
    one.Set("file", image.file);
    one.Set("codes", image.codes);
    out.Set(out.Length(), one);
  }
  return out;
}

// cudaImageFor(arch): what such a GPU would run of the addon.
Napi::Value cuda_image_for_arch(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber()) throw Napi::TypeError::New(info.Env(), "arch must be a number");
  return Napi::String::New(info.Env(), cuda_image_for(info[0].As<Napi::Number>().Int32Value()));
}

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
  exports.Set("cuda", Napi::Function::New(env, cuda, "cuda"));
  exports.Set("cudaKernels", strings(env, cuda_kernels()));
  exports.Set("cudaLaunches", strings(env, cuda_launches()));
  exports.Set("cudaImages", cuda_images_of(env));
  exports.Set("cudaImageFor", Napi::Function::New(env, cuda_image_for_arch, "cudaImageFor"));
#ifdef WESTWIND_HAS_CUDA
  exports.Set("gemmConfig", Napi::Function::New(env, gemm_config, "gemmConfig"));
#endif
  export_ops(env, exports);
  return exports;
}

}  // namespace
}  // namespace westwind

static Napi::Object InitWestwind(Napi::Env env, Napi::Object exports) { return westwind::init(env, exports); }
NODE_API_MODULE(westwind, InitWestwind)
