// The learning rate as a function of the step. s = 0 is the first update; W warm-up steps, S steps in all.
//   warm-up        rate * (s + 1) / W                      for s < W
//   then x = (s - W) / (S - W) in [0, 1):
//   constant       rate
//   cosine         floor + (rate - floor) * (1 + cos(pi x)) / 2
//   linear         rate * (1 - x)                          linear to zero
//   wsd            rate until x = 1 - decay, then rate * (1 - sqrt(u)), u = progress through the decay
// Pure and stateless. Sources: Loshchilov and Hutter 2017 (cosine); Hu et al. 2024, "MiniCPM" (wsd); Haegele
// et al. 2024 (the square root).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"

namespace retort::train {

struct ScheduleOptions {
  std::string kind = "wsd";
  int64_t warmup = 50;  // steps
  double decay = 0.2;   // wsd: the share of the steps after warm-up in which the rate falls
  double floor = 0.1;   // cosine: the last rate as a share of the peak
  void describe(Section& s);
};

// The rate of update `step` in [0, steps) of a run whose highest rate is `peak`.
double learning_rate(const ScheduleOptions& options, double peak, int64_t step, int64_t steps);
std::vector<std::string> schedule_kinds();

}  // namespace retort::train
