#include "core/cpu.h"

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "core/error.h"

namespace retort {
namespace {

void take_for(CpuFeatures& cpu, std::string_view name) {
  check<ConfigError>(name == "avx2" || name == "avx512" || name == "amx",
                     "RETORT_CPU must be avx2, avx512 or amx, got \"{}\"", name);
  if (name == "avx2") cpu.avx512 = cpu.avx512_bf16 = cpu.avx512_fp16 = false;
  cpu.amx_bf16 = name == "amx";
}

}  // namespace

CpuFeatures cpu_features() {
  CpuFeatures out;
  std::ifstream info("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(info, line) && (flags.empty() || out.model.empty());) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("vendor_id")) out.intel = line.substr(colon + 2) == "GenuineIntel";
    if (line.starts_with("model name")) out.model = line.substr(colon + 2);
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(colon + 2));
    for (std::string word; words >> word;) flags.insert(word);
  }
  const auto has = [&](const char* flag) { return flags.contains(flag); };
  out.avx2 = has("avx2");
  out.fma = has("fma");
  out.avx512 = has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl");
  out.avx512_bf16 = out.avx512 && has("avx512_bf16");
  out.avx512_fp16 = out.avx512 && has("avx512_fp16");
  out.amx_bf16 = has("amx_bf16");
  const char* const name = std::getenv("RETORT_CPU");
  if (name != nullptr && *name != '\0') take_for(out, name);
  return out;
}

}  // namespace retort
