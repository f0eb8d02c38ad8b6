// Noise contrastive alignment of a pair: Chen et al. 2024 (arXiv 2402.05369). It also holds each answer's own
// likelihood, not their difference alone.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss nca() {
  return {.name = "nca",
          .formula = "-log s(beta h_c) - log s(-beta h_c) / 2 - log s(-beta h_r) / 2",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double c = o.beta * chosen.gain(), r = o.beta * rejected.gain();
            return PairValue{-log_logistic(c) - 0.5 * log_logistic(-c) - 0.5 * log_logistic(-r),
                             o.beta * (0.5 * logistic(c) - logistic(-c)), o.beta * 0.5 * logistic(r)};
          }};
}

}  // namespace retort::distill
