#include "recipes/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <span>

#include "core/cuda_plugin.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
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

// Whether each process of the machine may have been given a GPU of its own: this one sees one alone.
bool has_its_own(const comm::LocalRank& local, size_t gpus) { return local.size > 1 && gpus == 1; }

// Why there is no GPU for it; "" where the driver has one.
std::string trouble_with(const std::string& wanted, int64_t ranks, const comm::LocalRank& local,
                         const Devices& devices) {
  if (!devices.compiled)
    return fmt::format("there is no {}, which a build with CUDA makes", CudaPlugin::path());
  const int number = std::max(0, number_of(wanted));
  if (ranks > 1 && wanted.starts_with("cuda:"))
    return fmt::format("{} ranks are to train, and this is one GPU: cuda gives each one of its own", ranks);
  const CudaDriver driver = devices.driver();
  if (!driver.missing.empty()) return driver.missing;
  const auto gpus = static_cast<int>(driver.gpus.size());
  if (ranks > 1 && gpus < ranks && !has_its_own(local, driver.gpus.size()))
    return fmt::format("{} ranks are to train, and this machine has {} GPU{}, one for each rank", ranks, gpus,
                       gpus == 1 ? "" : "s");
  if (number < gpus) return "";
  return fmt::format("there is no cuda:{}: this machine has {} GPU{} (retort devices)", number, gpus,
                     gpus == 1 ? "" : "s");
}

// A GPU's number, in every process that sees it the same; of the CPU 0.
int64_t key_of(const ChosenDevice& chosen, int rank) {
  if (chosen.device.is_cpu()) return 0;
  return chosen.uuid.empty() ? -1 - rank : static_cast<int64_t>(xxh3(chosen.uuid) >> 1) | 1;
}

// Why ranks cannot train on what each of them chose; "" where they can.
std::string trouble_among(std::span<const int64_t> keys) {
  if (std::ranges::count(keys, 0) == std::ssize(keys)) return "";
  std::map<int64_t, size_t> owners;
  for (size_t rank = 0; rank < keys.size(); ++rank) {
    if (keys[rank] == 0) return fmt::format("rank {} has no GPU, and others have one", rank);
    const auto [owner, is_new] = owners.emplace(keys[rank], rank);
    if (!is_new)
      return fmt::format(
          "ranks {} and {} are shown the same GPU and no other: give each process one of its own "
          "(srun --gpus-per-task=1), or show them all to each",
          owner->second, rank);
  }
  return "";
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
  const std::string trouble = trouble_with(wanted, ranks, {}, devices);
  return trouble.empty() ? "" : fmt::format("{}: {}; {}", wanted, trouble, kRemedy);
}

ChosenDevice choose_device(const std::string& wanted, int64_t ranks, const comm::LocalRank& local,
                           const Devices& devices) {
  if (wanted == "cpu") return {c10::kCPU, "device cpu, as run.device says"};
  std::string trouble = trouble_with(wanted, ranks, local, devices);
  if (trouble.empty()) trouble = devices.load();
  if (trouble.empty()) {
    const std::vector<Gpu> gpus = devices.driver().gpus;
    const int number = std::max(0, number_of(wanted)) + (has_its_own(local, gpus.size()) ? 0 : local.rank);
    const Gpu& gpu = gpus.at(static_cast<size_t>(number));
    return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number)),
            fmt::format("device cuda:{}: {}{}", number, gpu.name, ranks > 1 ? "; a GPU for each rank" : ""),
            gpu.uuid};
  }
  check<ConfigError>(wanted == "auto", "run.device: {}: {}; {}", wanted, trouble, kRemedy);
  return {c10::kCPU, fmt::format("device cpu: {}", trouble)};
}

ChosenDevice agree_on_device(const std::string& wanted, ChosenDevice mine, comm::Comm& comm) {
  if (wanted == "cpu" || comm.size() == 1) return mine;
  const at::Tensor keys = at::empty({comm.size(), 1}, at::kLong);
  comm.all_gather(keys, at::full({1}, key_of(mine, comm.rank()), at::kLong)).wait();
  const std::string trouble = trouble_among(host_values<const int64_t>(keys));
  if (trouble.empty()) return mine;
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
