#include "recipes/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

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
std::string trouble_with(int number, int64_t ranks, const Devices& devices) {
  if (!devices.compiled) return "this program was built without CUDA";
  if (ranks > 1) return fmt::format("{} ranks are to train, and on a GPU only one can yet", ranks);
  const CudaDriver driver = devices.driver();
  if (!driver.missing.empty()) return driver.missing;
  const auto gpus = static_cast<int>(driver.gpus.size());
  if (number < gpus) return "";
  return fmt::format("there is no cuda:{}: this machine has {} GPU{} (retort devices)", number, gpus,
                     gpus == 1 ? "" : "s");
}

}  // namespace

Rule<std::string> device_rule() {
  return {"auto, cpu, cuda or cuda:N",
          [](const std::string& name) { return name == "auto" || name == "cpu" || number_of(name) >= 0; },
          {"auto", "cpu", "cuda"}};
}

Devices devices_here() {
  return {kernels::cuda::compiled(), [] { return probe_cuda_driver(); }, kernels::cuda::load};
}

std::string device_misfit(const std::string& wanted, int64_t ranks, const Devices& devices) {
  const int number = number_of(wanted);
  if (number < 0) return "";
  const std::string trouble = trouble_with(number, ranks, devices);
  return trouble.empty() ? "" : fmt::format("{}: {}; {}", wanted, trouble, kRemedy);
}

ChosenDevice choose_device(const std::string& wanted, int64_t ranks, const Devices& devices) {
  if (wanted == "cpu") return {c10::kCPU, "device cpu, as run.device says"};
  const int number = std::max(0, number_of(wanted));
  std::string trouble = trouble_with(number, ranks, devices);
  if (trouble.empty()) trouble = devices.load();
  if (trouble.empty())
    return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number)),
            fmt::format("device cuda:{}: {}", number,
                        devices.driver().gpus.at(static_cast<size_t>(number)).name)};
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
