// Anchored preference optimisation, for chosen answers that are worse than the model's own: D'Oosterlinck et
// al. 2024 (arXiv 2408.06266), APO-down. Both answers become less likely, the rejected one faster.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss apo_down() {
  return {.name = "apo_down",
          .formula = "s(beta h_c) + 1 - s(beta D)",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double c = o.beta * chosen.gain(), x = o.beta * (chosen.gain() - rejected.gain());
            const double slope = o.beta * logistic_slope(x);
            return PairValue{logistic(c) + logistic(-x), o.beta * logistic_slope(c) - slope, slope};
          }};
}

}  // namespace retort::distill
