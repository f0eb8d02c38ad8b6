// What a plan knows of the machines: one row a device, each number with its source. Rates are nominal peaks; `share` is
// what a training step reaches of them. GPU rows are data sheets and other people's runs: Retort has not run on a GPU.
#pragma once

#include <cstdint>
#include <string>

#include "core/registry.h"

namespace retort::plan {

struct Device {
  std::string name = {};
  std::string what = {};  // "NVIDIA H100 SXM, 80 GB"
  // Of one device. The ranks of a CPU share one machine, memory and rates alike.
  double memory = 0;             // bytes
  double usable = 1;             // the share that tensors can have: libraries and fragments take the rest
  double f32 = 0, bf16 = 0;      // FLOP/s of dense products
  double memory_bandwidth = 0;   // bytes/s
  double node_bandwidth = 0;     // bytes/s of a rank, one direction, to ranks of its machine
  double network_bandwidth = 0;  // bytes/s of a rank, one direction, to other machines
  int64_t ranks_a_node = 8;
  bool shared = false;  // all ranks are on one device
  // Products of width w reach share * w / (w + half_width) of the peak (Narayanan's A100 rows fit so with half_width 320).
  double share = 0, half_width = 0;
  std::string source = {};

  double rate(bool in_bf16) const { return in_bf16 ? bf16 : f32; }
  // Bytes that a rank's tensors can have.
  double memory_of_rank(int64_t ranks) const {
    return usable * memory / (shared ? static_cast<double>(ranks) : 1.0);
  }
};

// The cpu row is this machine: its memory is read, its rates are 0 until measured_cpu() has measured them.
const Registry<Device>& devices();

// The cpu row with the rates of products on all threads, GFLOP/s (kernels/cpu_tuning.h measures them).
Device measured_cpu(double f32_gflops, double bf16_gflops);

}  // namespace retort::plan
