// Identity preference optimisation: Azar et al. 2023 (arXiv 2310.12036), equation 17, on means over an answer's
// tokens, as its authors' own code has it.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss ipo() {
  return {.name = "ipo",
          .formula = "(h_c / n_c - h_r / n_r - 1 / (2 beta))^2",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = chosen.mean_gain() - rejected.mean_gain() - 1.0 / (2.0 * o.beta);
            return on_margin(x * x, 2.0 * x, 1.0 / static_cast<double>(chosen.tokens),
                             1.0 / static_cast<double>(rejected.tokens));
          }};
}

}  // namespace retort::distill
