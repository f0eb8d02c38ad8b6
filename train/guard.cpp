#include "train/guard.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace retort::train {
namespace {

// Above which a figure is a spike.
double limit_of(const std::vector<double>& figures, double zscore) {
  const auto count = static_cast<double>(figures.size());
  const double mean = std::accumulate(figures.begin(), figures.end(), 0.0) / count;
  double squares = 0;
  for (const double figure : figures) squares += (figure - mean) * (figure - mean);
  return mean + zscore * std::sqrt(squares / count);
}

void push(std::vector<double>& figures, double figure, int64_t window) {
  figures.push_back(figure);
  if (std::ssize(figures) > window) figures.erase(figures.begin(), figures.end() - window);
}

}  // namespace

void GuardOptions::describe(Section& s) {
  s.field(
      "zscore", zscore,
      "deviations above the mean of the last updates beyond which a step's loss or gradient norm is a spike, "
      "and the step is skipped; 6 is usual, 0: never",
      at_least(0.0));
  s.field("window", window, "updates of which that mean is; before there are so many, nothing is a spike",
          at_least(int64_t{2}));
  s.field("rerun", rerun,
          "compute a skipped step once more: where other bits come out a machine is at fault, which is "
          "named, and "
          "the second result counts; a second fault ends the run (exit 78)");
  s.field("rollbacks", rollbacks,
          "times that a run goes back to an earlier checkpoint when train.max_skipped steps in a row are "
          "skipped, and "
          "leaves the steps around them out; 0: it stops (exit 77)",
          at_least(int64_t{0}));
  s.field("margin", margin, "steps before and after the skipped ones that are left out as well",
          at_least(int64_t{0}));
  s.field(
      "compare_every", compare_every,
      "steps between comparisons of the ranks' weights; where they differ the run stops (exit 78); 0: before "
      "saves only",
      at_least(int64_t{0}));
}

StepLimits Guard::limits() const {
  StepLimits limits;
  limits.rerun = options_.rerun;
  if (options_.zscore == 0.0 || std::ssize(losses_) < options_.window) return limits;
  limits.loss = limit_of(losses_, options_.zscore);
  limits.norm = limit_of(norms_, options_.zscore);
  return limits;
}

bool Guard::leaves_out(int64_t step) const {
  return std::ranges::any_of(left_out_,
                             [&](const LeftOut& out) { return step >= out.first && step < out.end; });
}

void Guard::take(const StepStats& stats) {
  next_ = stats.step + 1;
  if (stats.skipped) {
    skipped_.push_back(stats.step);
  } else if (options_.zscore > 0.0) {
    push(losses_, stats.loss, options_.window);
    push(norms_, stats.gradient_norm, options_.window);
  }
}

int64_t Guard::in_a_row() const {
  int64_t count = 0;
  while (count < std::ssize(skipped_) && skipped_.end()[-1 - count] == next_ - 1 - count) ++count;
  return count;
}

LeftOut Guard::around() const {
  return {std::max<int64_t>(0, next_ - in_a_row() - options_.margin), next_ + options_.margin};
}

void Guard::leave_out(const Guard& later) {
  left_out_ = later.left_out_;
  left_out_.push_back(later.around());
}

void Guard::write(formats::Json& train) const {
  train["skipped"] = skipped_;
  for (const LeftOut& out : left_out_) train["left_out"].push_back({out.first, out.end});
  if (options_.zscore > 0.0) train["window"] = {{"losses", losses_}, {"norms", norms_}};
}

void Guard::read(const formats::Json& train) {
  skipped_ = train.at("skipped").get<std::vector<int64_t>>();
  if (!skipped_.empty()) next_ = skipped_.back() + 1;
  if (train.contains("left_out"))
    for (const formats::Json& out : train["left_out"])
      left_out_.push_back({out.at(0).get<int64_t>(), out.at(1).get<int64_t>()});
  if (options_.zscore == 0.0 || !train.contains("window")) return;
  for (const double loss : train["window"].at("losses")) push(losses_, loss, options_.window);
  for (const double norm : train["window"].at("norms")) push(norms_, norm, options_.window);
}

}  // namespace retort::train
