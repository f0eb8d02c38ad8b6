// A loss's weight over a run: a pure function of the step, so that a resumed run needs nothing saved. The
// weight is w up to step `begin` and `to` from step `end` on. Between them, x = (step - begin) / (end -
// begin):
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
  void check() const;  // ConfigError for a ramp that ends before it begins
  void describe(Section& s);
};

}  // namespace retort::distill
