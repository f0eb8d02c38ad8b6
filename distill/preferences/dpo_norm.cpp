// DPO on means over an answer's tokens, so that length has no part in it: Tulu 3 (arXiv 2411.15124), equation 6;
// trl's sigmoid_norm.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss dpo_norm() {
  return {.name = "dpo_norm",
          .formula = "-log s(beta (h_c / n_c - h_r / n_r))",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.mean_gain() - rejected.mean_gain());
            return on_margin(-log_logistic(x), -logistic(-x), o.beta / static_cast<double>(chosen.tokens),
                             o.beta / static_cast<double>(rejected.tokens));
          }};
}

}  // namespace retort::distill
