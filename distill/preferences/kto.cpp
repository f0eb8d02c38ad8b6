// Kahneman-Tversky optimisation of rated answers: Ethayarajh et al. 2024 (arXiv 2402.01306), equation 8. The
// baseline z estimates KL(model || reference) by answers to other prompts, and is a constant to the gradient.
#include <algorithm>
#include <numeric>

#include "distill/preference_loss.h"

namespace retort::distill {
namespace {

RatedValue rated(const Answer& answer, bool good, double z, const PreferenceOptions& o) {
  const double x = o.beta * (answer.gain() - z), weight = good ? o.desirable_weight : o.undesirable_weight;
  const double slope = weight * o.beta * logistic_slope(x);
  return good ? RatedValue{weight * logistic(-x), -slope} : RatedValue{weight * logistic(x), slope};
}

double mean_above_zero(std::span<const double> gains) {
  if (gains.empty()) return 0.0;
  return std::max(0.0, std::accumulate(gains.begin(), gains.end(), 0.0) / static_cast<double>(gains.size()));
}

}  // namespace

PreferenceLoss kto() {
  return {.name = "kto",
          .formula =
              "good: desirable_weight (1 - s(beta (h - z))); bad: undesirable_weight (1 - s(beta (z - h))); "
              "z = max(0, mean h of answers to other prompts)",
          .parameters = {"desirable_weight", "undesirable_weight"},
          .of_rated = rated,
          .baseline = mean_above_zero};
}

}  // namespace retort::distill
