// A loss's weight over a run, a pure function of the step, so that a resumed run needs nothing saved. The
// weight w holds before `begin`, `to` from `end` on; between, with x = (step - begin) / (end - begin):
//
//   constant  w          linear  w + (to - w) x          cosine  w + (to - w) (1 - cos(pi x)) / 2
#pragma once

#include <cstdint>
#include <string>

#include "core/section.h"

namespace retort::distill {

struct WeightSchedule {
  std::string kind = "constant";
  double to = 0.0;
  int64_t begin = 0, end = 0;  // steps
  double at(double weight, int64_t step) const;
  void check() const;  // ConfigError: a ramp must end after it begins
  void describe(Section& s);
};

}  // namespace retort::distill
