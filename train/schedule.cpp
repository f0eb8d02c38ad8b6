#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/registry.h"

namespace retort::train {
namespace {

// The share of the peak at progress x in [0, 1) after warm-up.
using Shape = double (*)(const ScheduleOptions& options, double x);

double constant(const ScheduleOptions&, double) { return 1.0; }

double cosine(const ScheduleOptions& o, double x) {
  return o.floor + (1.0 - o.floor) * (1.0 + std::cos(std::numbers::pi * x)) / 2.0;
}

double linear(const ScheduleOptions&, double x) { return 1.0 - x; }

double wsd(const ScheduleOptions& o, double x) {
  const double stable = 1.0 - o.decay;
  return x < stable ? 1.0 : 1.0 - std::sqrt((x - stable) / o.decay);
}

struct ScheduleSpec {
  std::string name;
  Shape shape;
};

const Registry<ScheduleSpec>& schedules() {
  static const Registry<ScheduleSpec> table(
      "schedule", {{"constant", constant}, {"cosine", cosine}, {"linear", linear}, {"wsd", wsd}});
  return table;
}

}  // namespace

void ScheduleOptions::describe(Section& s) {
  s.field("kind", kind, "course of the rate after warm-up; wsd lets one run serve several budgets",
          one_of(schedule_kinds()));
  s.field("warmup", warmup, "steps of linear warm-up; left out, no more than there are",
          at_least(int64_t{0}));
  s.field("decay", decay, "share of the steps after warm-up in which the rate falls to zero (of wsd)",
          between(0.0, 1.0));
  s.field("floor", floor, "last rate as a share of the peak (of cosine)", between(0.0, 1.0));
}

double learning_rate(const ScheduleOptions& options, double peak, int64_t step, int64_t steps) {
  const Shape shape = schedules().at(options.kind).shape;
  if (step < options.warmup)
    return peak * static_cast<double>(step + 1) / static_cast<double>(options.warmup);
  RETORT_ASSERT(step < steps);
  const double x = static_cast<double>(step - options.warmup) / static_cast<double>(steps - options.warmup);
  return peak * shape(options, x);
}

bool same_rates(const ScheduleOptions& options, double peak, int64_t until, int64_t steps,
                int64_t other_steps) {
  const int64_t shorter = std::min(steps, other_steps);
  if (until > shorter || options.warmup > shorter) return false;  // the shorter one's warm-up was its own
  for (int64_t step = options.warmup; step < until; ++step)
    if (learning_rate(options, peak, step, steps) != learning_rate(options, peak, step, other_steps))
      return false;
  return true;
}

std::vector<std::string> schedule_kinds() { return schedules().names(); }

}  // namespace retort::train
