// Self-play preference optimisation with hard labels: Wu et al. 2024 (arXiv 2405.00675), equation 4.8.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss sppo() {
  return {.name = "sppo",
          .formula = "(h_c - 1 / (2 beta))^2 + (h_r + 1 / (2 beta))^2",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double c = chosen.gain() - 0.5 / o.beta, r = rejected.gain() + 0.5 / o.beta;
            return PairValue{c * c + r * r, 2.0 * c, 2.0 * r};
          }};
}

}  // namespace retort::distill
