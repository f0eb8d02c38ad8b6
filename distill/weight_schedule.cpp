#include "distill/weight_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace retort::distill {

double WeightSchedule::at(double weight, int64_t step) const {
  if (kind == "constant") return weight;
  const double x = std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
  const double share = kind == "cosine" ? 0.5 * (1.0 - std::cos(std::numbers::pi * x)) : x;
  return weight + (to - weight) * share;
}

void WeightSchedule::check() const {
  retort::check<ConfigError>(kind == "constant" || end > begin,
                             "[distill] a schedule's end must lie after its begin {}, got {}", begin, end);
}

void WeightSchedule::describe(Section& s) {
  s.field("kind", kind, "shape of the change from `weight` to `to`",
          one_of({"constant", "linear", "cosine"}));
  s.field("to", to, "weight from step `end` on", at_least(0.0));
  s.field("begin", begin, "last step with all of `weight`", at_least<int64_t>(0));
  s.field("end", end, "first step with all of `to`", at_least<int64_t>(0));
}

}  // namespace retort::distill
