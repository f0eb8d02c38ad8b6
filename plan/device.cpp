#include "plan/device.h"

#include <unistd.h>

namespace retort::plan {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9;
constexpr double kUsableOfGpu = 0.9;  // an assumption: nothing of it was measured
constexpr double kUsableOfCpu = 0.6;  // measured: docs/planning.md, "What the process takes"

double memory_of_machine() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE));
}

Device a100() {
  return {.name = "a100",
          .what = "NVIDIA A100 SXM, 80 GB",
          .memory = 80 * kGiga,
          .usable = kUsableOfGpu,
          .f32 = 19.5 * kTera,
          .bf16 = 312 * kTera,
          .memory_bandwidth = 2039 * kGiga,
          .node_bandwidth = 300 * kGiga,
          .network_bandwidth = 25 * kGiga,
          .share = 0.64,
          .half_width = 320,
          .source =
              "NVIDIA A100 data sheet; HDR 200 Gb/s a GPU; share: a fit of Megatron's rows (Narayanan 2021)"};
}

Device h100() {
  return {
      .name = "h100",
      .what = "NVIDIA H100 SXM, 80 GB",
      .memory = 80 * kGiga,
      .usable = kUsableOfGpu,
      .f32 = 67 * kTera,
      .bf16 = 989.5 * kTera,
      .memory_bandwidth = 3350 * kGiga,
      .node_bandwidth = 450 * kGiga,
      .network_bandwidth = 50 * kGiga,
      .share = 0.50,
      .half_width = 320,
      .source =
          "NVIDIA H100 data sheet; NDR 400 Gb/s a GPU; share: llm-foundry's 7B row, 46.4 % at width 4096"};
}

Device h200() {
  Device device = h100();
  device.name = "h200";
  device.what = "NVIDIA H200 SXM, 141 GB";
  device.memory = 141 * kGiga;
  device.memory_bandwidth = 4800 * kGiga;
  device.source =
      "NVIDIA H200 data sheet; NDR 400 Gb/s a GPU; share: that of h100, which has the same processor";
  return device;
}

Device cpu() {
  return {.name = "cpu",
          .what = "this machine's processors",
          .memory = memory_of_machine(),
          .usable = kUsableOfCpu,
          .memory_bandwidth = 0,
          .ranks_a_node = int64_t{1} << 30,
          .shared = true,
          .share = 0.5,
          .half_width = 0,
          .source = "memory of this machine; products measured on it; share: an assumption (docs/planning.md)"};
}

}  // namespace

const Registry<Device>& devices() {
  static const Registry<Device> table("device", {h100(), h200(), a100(), cpu()});
  return table;
}

Device measured_cpu(double f32_gflops, double bf16_gflops) {
  Device device = devices().at("cpu");
  device.f32 = f32_gflops * kGiga;
  device.bf16 = bf16_gflops * kGiga;
  return device;
}

}  // namespace retort::plan
