// The learning rate as a function of the step. s = 0 is the first update; W warm-up steps, S steps in all.
//   warm-up        rate * (s + 1) / W                      for s < W
//   then x = (s - W) / (S - W) in [0, 1):
//   constant       rate
//   cosine         floor + (rate - floor) * (1 + cos(pi x)) / 2
//   linear         rate * (1 - x)                          linear to zero
//   wsd            rate until x = 1 - decay, then rate * (1 - sqrt(u)), u = progress through the decay
// Pure and stateless. Source: docs/training.md, models.md section 9 of the frame.
#pragma once

#include <cstdint>
#include <string>

#include "core/section.h"

namespace retort::train {

struct ScheduleOptions {
  std::string kind = "wsd";
  int64_t warmup = 50;   // steps
  double decay = 0.2;    // wsd: the share of the steps after warm-up in which the rate falls
  double floor = 0.1;    // cosine: the last rate as a share of the peak
  void describe(Section& s);
};

double learning_rate(const ScheduleOptions& options, double peak, int64_t step, int64_t steps);

}  // namespace retort::train
