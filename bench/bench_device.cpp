// The CUDA kernels and whole training steps on a device: each checked first (kernels and losses against fp64, bf16 steps
// against f32), then timed, told as a share of what a copy and a product reach in this run, and held to its target. One
// Markdown table on stdout; exits with 1 when a result is wrong, not when a target is missed.
//   bench_device [--pretend] [kernels] [losses] [steps]     no part: all
// --pretend: the emulated kernels of $RETORT_CUDA_PLUGIN on host memory, small shapes, and tiny models in place of the large
// ones on the CPU, to try the program where there is no GPU. Its times mean nothing, and the table says so.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "bench/device_table.h"
#include "core/error.h"

namespace retort::bench {
namespace {

void print_kernels(Table& table) {
  print_rows(table, kernels::cuda::device_ops(), kernel_rows());
  print_rows(table, kernels::cuda::device_ops(), grid_rows());
}

struct Part {
  std::string name;
  void (*print)(Table& table);
};
const Part kParts[] = {{"kernels", print_kernels}, {"losses", print_loss_layers}, {"steps", print_steps}};

struct Wanted {
  bool pretends = false;
  std::vector<Part> parts;
};
Wanted wanted(const std::vector<std::string>& arguments) {
  Wanted out;
  for (const std::string& argument : arguments) {
    const auto* part =
        std::find_if(std::begin(kParts), std::end(kParts), [&](const Part& p) { return p.name == argument; });
    if (part != std::end(kParts)) out.parts.push_back(*part);
    check<ConfigError>(part != std::end(kParts) || argument == "--pretend",
                       "[bench_device] unknown argument {}; known: --pretend, kernels, losses, steps",
                       argument);
    out.pretends |= argument == "--pretend";
  }
  if (out.parts.empty()) out.parts.assign(std::begin(kParts), std::end(kParts));
  return out;
}

// The kernels that were loaded must be those of the place: emulated ones take the host's memory, and a GPU's do not.
Place place_for(bool pretends) {
  const std::string why = kernels::cuda::load();
  check<ConfigError>(why.empty(), "[bench_device] {}: {}",
                     pretends ? "--pretend needs emulated kernels in $RETORT_CUDA_PLUGIN"
                              : "needs a GPU (--pretend tries the program without one)",
                     why);
  const std::string name = kernels::cuda::device_ops().table().name;
  check<ConfigError>((name == "emulated") == pretends, "[bench_device] {}",
                     pretends ? "--pretend needs emulated kernels in $RETORT_CUDA_PLUGIN, which names a GPU's"
                              : "$RETORT_CUDA_PLUGIN names emulated kernels, which --pretend alone can time");
  return {pretends ? at::Device(at::kCPU) : at::Device(at::kCUDA, 0), pretends};
}

int run(const std::vector<std::string>& arguments) {
  const Wanted all = wanted(arguments);
  const Place place = place_for(all.pretends);
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  Table table(place);
  table.head(kernels::cuda::device_ops().table().name);
  for (const Part& part : all.parts) part.print(table);
  return table.foot() ? 0 : 1;
}

}  // namespace
}  // namespace retort::bench

int main(int count, char** arguments) {
  try {
    return retort::bench::run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
