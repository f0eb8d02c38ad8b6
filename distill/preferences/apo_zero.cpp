// Anchored preference optimisation, for chosen answers that are better than the model's own: D'Oosterlinck et
// al. 2024 (arXiv 2408.06266), APO-zero; of pairs, and of rated answers.
#include "distill/preference_loss.h"

namespace retort::distill {
namespace {

RatedValue rated(const Answer& answer, bool good, double, const PreferenceOptions& o) {
  const double x = o.beta * answer.gain(), weight = good ? o.desirable_weight : o.undesirable_weight;
  const double slope = weight * o.beta * logistic_slope(x);
  return good ? RatedValue{weight * logistic(-x), -slope} : RatedValue{weight * logistic(x), slope};
}

}  // namespace

PreferenceLoss apo_zero() {
  return {
      .name = "apo_zero",
      .formula = "1 - s(beta h_c) + s(beta h_r)",
      .parameters = {"nll"},
      .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
        const double c = o.beta * chosen.gain(), r = o.beta * rejected.gain();
        return PairValue{logistic(-c) + logistic(r), -o.beta * logistic_slope(c), o.beta * logistic_slope(r)};
      }};
}

PreferenceLoss apo_zero_rated() {
  return {.name = "apo_zero_rated",
          .formula = "good: desirable_weight (1 - s(beta h)); bad: undesirable_weight s(beta h)",
          .parameters = {"desirable_weight", "undesirable_weight"},
          .of_rated = rated};
}

}  // namespace retort::distill
