#include "recipes/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/cuda_plugin.h"
#include "core/error.h"
#include "kernels/cuda_ops.h"
#include "recipes/data_options.h"

namespace retort::recipes {
namespace {

constexpr std::string_view kCuda = "cuda";
constexpr const char* kRemedy = "take run.device: cpu or auto";

// N of "cuda:N", 0 of "cuda"; -1 of anything else.
int number_of(std::string_view name) {
  if (name == kCuda) return 0;
  if (!name.starts_with("cuda:")) return -1;
  name.remove_prefix(5);
  int number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool whole = error == std::errc() && end == name.data() + name.size() && number >= 0 && number < 128;
  return whole ? number : -1;
}

// Why there is no GPU for it; "" where the driver has one.
std::string trouble_with(const std::string& wanted, int64_t ranks, const Devices& devices) {
  if (!devices.compiled)
    return fmt::format("there is no {}, which a build with CUDA makes", CudaPlugin::path());
  const int number = std::max(0, number_of(wanted));
  if (ranks > 1 && wanted.starts_with("cuda:"))
    return fmt::format("{} ranks are to train, and this is one GPU: cuda gives each one of its own", ranks);
  const CudaDriver driver = devices.driver();
  if (!driver.missing.empty()) return driver.missing;
  const auto gpus = static_cast<int>(driver.gpus.size());
  if (ranks > 1 && gpus < ranks)
    return fmt::format("{} ranks are to train, and this machine has {} GPU{}, one for each rank", ranks, gpus,
                       gpus == 1 ? "" : "s");
  if (number < gpus) return "";
  return fmt::format("there is no cuda:{}: this machine has {} GPU{} (retort devices)", number, gpus,
                     gpus == 1 ? "" : "s");
}

}  // namespace

Rule<std::string> device_rule() {
  // cpu is no suggestion: it is what lies nearest to "gpu".
  return {"auto, cpu, cuda (a GPU) or cuda:N",
          [](const std::string& name) { return name == "auto" || name == "cpu" || number_of(name) >= 0; },
          {"auto", "cuda"}};
}

Devices devices_here() {
  return {CudaPlugin::is_there(), [] { return probe_cuda_driver(); }, kernels::cuda::load};
}

std::string device_misfit(const std::string& wanted, int64_t ranks, const Devices& devices) {
  if (number_of(wanted) < 0) return "";
  const std::string trouble = trouble_with(wanted, ranks, devices);
  return trouble.empty() ? "" : fmt::format("{}: {}; {}", wanted, trouble, kRemedy);
}

ChosenDevice choose_device(const std::string& wanted, int64_t ranks, int local, const Devices& devices) {
  if (wanted == "cpu") return {c10::kCPU, "device cpu, as run.device says"};
  std::string trouble = trouble_with(wanted, ranks, devices);
  if (trouble.empty()) trouble = devices.load();
  if (trouble.empty()) {
    const int number = std::max(0, number_of(wanted)) + local;
    const std::string name = devices.driver().gpus.at(static_cast<size_t>(number)).name;
    return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number)),
            fmt::format("device cuda:{}: {}{}", number, name, ranks > 1 ? "; a GPU for each rank" : "")};
  }
  check<ConfigError>(wanted == "auto", "run.device: {}: {}; {}", wanted, trouble, kRemedy);
  return {c10::kCPU, fmt::format("device cpu: {}", trouble)};
}

int64_t most_ranks(const Recipe& recipe, int64_t processes) {
  int64_t most = processes;
  for (const Stage& stage : recipe.stages)
    if (const auto* parallel = stage.find<ParallelOptions>()) most = std::max(most, parallel->ranks);
  return most;
}

}  // namespace retort::recipes
