#include "core/cuda_plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

namespace retort {
namespace {

constexpr const char* kFile = "libretort_cuda.so";

}  // namespace

std::string CudaPlugin::path() {
  const char* const given = std::getenv("RETORT_CUDA_PLUGIN");
  if (given != nullptr && *given != '\0') return given;
  std::error_code failed;
  return std::filesystem::read_symlink("/proc/self/exe", failed).replace_filename(kFile).string();
}

bool CudaPlugin::is_there() {
  std::error_code failed;
  return std::filesystem::exists(path(), failed);
}

const CudaPlugin& CudaPlugin::get() {
  static const CudaPlugin opened(path());
  return opened;
}

CudaPlugin::CudaPlugin(const std::string& path) {
  std::error_code failed;
  if (!std::filesystem::exists(path, failed)) {
    missing_ = fmt::format("there is no {}, which a build with CUDA makes", path);
    return;
  }
  library_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    missing_ = ::dlerror();
    return;
  }
  auto* const stamp = function<const char*()>("retort_cuda_stamp");
  const std::string theirs = stamp == nullptr ? "no part of retort" : fmt::format("of {}", stamp());
  if (stamp == nullptr || std::string(stamp()) != RETORT_PLUGIN_STAMP)
    missing_ = fmt::format("{} is {}, and this program is of {}: take the one that was built with it", path,
                           theirs, RETORT_PLUGIN_STAMP);
}

void* CudaPlugin::symbol(const char* name) const {
  return library_ == nullptr ? nullptr : ::dlsym(library_, name);
}

}  // namespace retort
