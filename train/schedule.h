// The learning rate as a function of the step: step s of S counts from 0, the first W warm up.
//   warm-up        rate * (s + 1) / W                      for s < W
//   then x = (s - W) / (S - W) in [0, 1):
//   constant       rate
//   cosine         floor + (rate - floor) * (1 + cos(pi x)) / 2        Loshchilov and Hutter 2017
//   linear         rate * (1 - x)
//   wsd            rate until x = 1 - decay, then rate * (1 - sqrt(progress through the decay))
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"

namespace retort::train {

// Sources of wsd: Hu et al. 2024, "MiniCPM"; Haegele et al. 2024 for the square root.
struct ScheduleOptions {
  std::string kind = "wsd";
  int64_t warmup = 50;  // steps
  double decay = 0.2;   // of wsd: the share of the steps after warm-up in which the rate falls
  double floor = 0.1;   // of cosine: the last rate as a share of the peak
  void describe(Section& s);
};

// The rate of update `step` in [0, steps) of a run whose highest rate is `peak`. Pure.
double learning_rate(const ScheduleOptions& options, double peak, int64_t step, int64_t steps);
// Whether two runs of these lengths have the same rates in their first `until` updates, so that they are one run till
// then. Beyond warm-up: constant always, wsd until the shorter one's fall, cosine and linear for one update.
bool same_rates(const ScheduleOptions& options, double peak, int64_t until, int64_t steps,
                int64_t other_steps);
std::vector<std::string> schedule_kinds();

}  // namespace retort::train
