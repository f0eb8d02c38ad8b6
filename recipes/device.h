// run.device: where a run's models are trained and scored.
//
//   auto     a GPU that answers, one for each rank of this machine; else the CPU. The log says which and why
//   cpu
//   cuda     the first GPU, and each further rank of this machine the next one; or a process's only one, where each was
//            given its own (srun --gpus-per-task=1)
//   cuda:N   the GPU of that number (retort devices lists them), for one rank
//
// Nothing is loaded for the CPU, nor for auto on a machine whose driver has no GPU.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <string>

#include "comm/bootstrap.h"
#include "core/cuda_driver.h"
#include "core/section.h"
#include "recipes/recipe.h"

namespace retort::recipes {

Rule<std::string> device_rule();

// What there is to choose from: this machine's, or a test's.
struct Devices {
  bool compiled = false;  // whether there are CUDA kernels: core/cuda_plugin.h
  std::function<CudaDriver()> driver = {};
  std::function<std::string()> load = {};  // kernels/cuda_ops.h: "" or why there are no CUDA tensors
};
Devices devices_here();

// Why a run of so many ranks on this machine cannot take it, and what to do; "" where it can, as far as is known without loading
// anything. Never for cpu and auto.
std::string device_misfit(const std::string& wanted, int64_t ranks, const Devices& devices = devices_here());

struct ChosenDevice {
  c10::Device device = c10::kCPU;
  std::string sentence;   // for the log
  std::string uuid = {};  // of the GPU; "" of the CPU
};
// For this process of the machine's; its rank r, a thread, takes device + r (recipes/on_ranks.h). ConfigError for a
// device that is not there.
ChosenDevice choose_device(const std::string& wanted, int64_t ranks, const comm::LocalRank& local = {},
                           const Devices& devices = devices_here());
// What the launch's processes chose, compared: where one has no GPU or two have the same, auto is the CPU everywhere, and
// cuda a ConfigError that names the ranks. Collective.
ChosenDevice agree_on_device(const std::string& wanted, ChosenDevice mine, comm::Comm& comm);

// On a machine, of any stage: the launch's processes there, or parallel.ranks threads.
int64_t most_ranks(const Recipe& recipe, int64_t processes);

}  // namespace retort::recipes
