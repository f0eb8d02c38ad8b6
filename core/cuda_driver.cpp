#include "core/cuda_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

namespace retort {
namespace {

// Of the driver's interface, as its manual has it: numbers that stay.
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;

struct Close {
  void operator()(void* library) const { ::dlclose(library); }
};
using Library = std::unique_ptr<void, Close>;

class Driver {
 public:
  explicit Driver(void* library) : library_(library) {}
  // Calls a function of the driver; what went wrong, or "".
  template <class... T>
  std::string call(const char* name, T... arguments) const {
    const auto function = reinterpret_cast<int (*)(T...)>(::dlsym(library_, name));
    if (function == nullptr) return fmt::format("the driver has no {}", name);
    const int status = function(arguments...);
    return status == 0 ? "" : fmt::format("{}: {}", name, text_of(status));
  }

 private:
  std::string text_of(int status) const {
    const auto describe = reinterpret_cast<int (*)(int, const char**)>(::dlsym(library_, "cuGetErrorString"));
    const char* text = nullptr;
    if (describe == nullptr || describe(status, &text) != 0 || text == nullptr)
      return fmt::format("error {}", status);
    return fmt::format("{} (error {})", text, status);
  }
  void* library_;
};

std::string uuid_of(const Driver& driver, int device) {
  unsigned char bytes[16] = {};
  if (!driver.call("cuDeviceGetUuid_v2", static_cast<void*>(bytes), device).empty()) return "";
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

Gpu read_gpu(const Driver& driver, int number) {
  Gpu out;
  int device = 0;
  char name[256] = {};
  size_t memory = 0;
  if (!driver.call("cuDeviceGet", &device, number).empty()) return out;
  if (driver.call("cuDeviceGetName", name, static_cast<int>(sizeof name) - 1, device).empty())
    out.name = name;
  out.uuid = uuid_of(driver, device);
  if (driver.call("cuDeviceTotalMem_v2", &memory, device).empty()) out.memory = memory;
  driver.call("cuDeviceGetAttribute", &out.major, kMajor, device);
  driver.call("cuDeviceGetAttribute", &out.minor, kMinor, device);
  driver.call("cuDeviceGetAttribute", &out.multiprocessors, kMultiprocessors, device);
  return out;
}

}  // namespace

int cuda_runtime_version() {
  const auto get = reinterpret_cast<int (*)(int*)>(::dlsym(RTLD_DEFAULT, "cudaRuntimeGetVersion"));
  int version = 0;
  return get != nullptr && get(&version) == 0 ? version : 0;
}

CudaDriver probe_cuda_driver(const std::string& library, int runtime) {
  CudaDriver out;
  // What cuInit has begun, threads among it, outlives the call; LibTorch opens the same driver later.
  const Library opened(::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
  if (!opened) {
    out.missing = fmt::format("no NVIDIA driver: {}", ::dlerror());
    return out;
  }
  const Driver driver(opened.get());
  driver.call("cuDriverGetVersion", &out.version);
  int count = 0;
  out.missing = driver.call("cuInit", 0U);
  if (out.missing.empty()) out.missing = driver.call("cuDeviceGetCount", &count);
  for (int number = 0; number < count; ++number) out.gpus.push_back(read_gpu(driver, number));
  if (out.missing.empty() &&
      out.version / 1000 < runtime / 1000)  // within a major number any minor one serves
    out.missing = fmt::format(
        "the driver is too old: it knows CUDA up to {}, and LibTorch here is of CUDA {}; update the driver",
        cuda_version(out.version), cuda_version(runtime));
  if (out.missing.empty() && count == 0)
    out.missing = "the driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it)";
  return out;
}

std::string cuda_version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

int nccl_version(const std::string& library) {
  const Library opened(::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (!opened) return 0;
  int version = 0;
  return Driver(opened.get()).call("ncclGetVersion", &version).empty() ? version : 0;
}

}  // namespace retort
