// The odds of the chosen answer over the rejected one's, beside its likelihood and without a reference: Hong et
// al. 2024 (arXiv 2403.07691), equation 6.
#include <cmath>
#include <numbers>

#include "distill/preference_loss.h"

namespace retort::distill {
namespace {

// log(1 - exp(m)) of m < 0, by the branch that keeps its digits.
double log_complement(double m) {
  return m > -std::numbers::ln2 ? std::log(-std::expm1(m)) : std::log1p(-std::exp(m));
}

double log_odds(double m) { return m - log_complement(m); }

// d log_odds / d l of an answer.
double slope_of(const Answer& answer) {
  return -1.0 / (std::expm1(answer.mean()) * static_cast<double>(answer.tokens));
}

}  // namespace

PreferenceLoss orpo() {
  return {.name = "orpo",
          .formula = "-beta log s(log odds(m_c) - log odds(m_r)), odds(m) = exp(m) / (1 - exp(m))",
          .needs_reference = false,
          .parameters = {"nll"},
          .nll = 1.0,
          .of_pair =
              [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
                const double x = log_odds(chosen.mean()) - log_odds(rejected.mean());
                return on_margin(-o.beta * log_logistic(x), -o.beta * logistic(-x), slope_of(chosen),
                                 slope_of(rejected));
              },
          .reward = [](const Answer& answer, const PreferenceOptions& o) { return o.beta * answer.mean(); }};
}

}  // namespace retort::distill
