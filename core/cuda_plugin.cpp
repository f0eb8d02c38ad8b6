#include "core/cuda_plugin.h"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace retort {
namespace {

constexpr const char* kFile = "libretort_cuda.so";

// Bytes up to the end of the last segment that the loader maps; 0 of what is no library for 64 bits.
uint64_t mapped_bytes(std::ifstream& file) {
  Elf64_Ehdr header = {};
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return 0;
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  file.seekg(static_cast<std::streamoff>(header.e_phoff));
  uint64_t end = 0;
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment = {};
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return UINT64_MAX;
    if (segment.p_type == PT_LOAD) end = std::max(end, segment.p_offset + segment.p_filesz);
  }
  return end;
}

// The loader maps what the file no longer has, and whoever reads it there dies of SIGBUS.
bool cut_short(const std::string& path) {
  std::error_code failed;
  const uint64_t size = std::filesystem::file_size(path, failed);
  std::ifstream file(path, std::ios::binary);
  return !failed && file && mapped_bytes(file) > size;
}

}  // namespace

std::string with_remedy(const std::string& trouble) {
  const bool library = trouble.find("cannot open shared object file") != std::string::npos;
  return library ? trouble + "; scripts/setup.sh --cuda brings NVIDIA's libraries" : trouble;
}

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
  if (cut_short(path)) {
    missing_ = fmt::format("{} is truncated: rebuild it, or copy it again", path);
    return;
  }
  library_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    missing_ = with_remedy(::dlerror());
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
