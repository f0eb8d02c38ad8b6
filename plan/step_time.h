// How long a step takes, by arithmetic:
//
//   compute   FLOPs of a rank / (peak * share * w / (w + half_width)), w the model's width (plan/device.h)
//   exposed   max(0, bytes sent / bandwidth - (1 - 1/L) * backward of one micro-batch), L layers
//
// The bandwidth is that of the network where the ranks are more than a machine has. Memory-bound work, the optimizer, data
// and start-up are in the share. Pure functions.
#pragma once

#include "plan/device.h"

namespace retort::plan {

struct StepWork {
  double flops = 0;  // of a rank in a step
  double bytes = 0;  // that it sends
  double width = 0;  // of the model's products
  int64_t layers = 1;
  int64_t micro_batches = 1;
  int64_t ranks = 1;
  bool bf16 = false;
};

struct StepTime {
  double compute = 0, exposed = 0;  // seconds
  double efficiency = 0;            // of the peak, in compute
  double bandwidth = 0;             // bytes/s that was assumed; 0: none was
  double total() const { return compute + exposed; }
};

StepTime step_time(const StepWork& work, const Device& device);

}  // namespace retort::plan
