// A margin between means, without a reference: Meng et al. 2024 (arXiv 2405.14734), equation 6.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss simpo() {
  return {.name = "simpo",
          .formula = "-log s(beta (m_c - m_r) - gamma)",
          .needs_reference = false,
          .parameters = {"gamma", "nll"},
          .of_pair =
              [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
                const double x = o.beta * (chosen.mean() - rejected.mean()) - o.gamma;
                return on_margin(-log_logistic(x), -logistic(-x), o.beta / static_cast<double>(chosen.tokens),
                                 o.beta / static_cast<double>(rejected.tokens));
              },
          .reward = [](const Answer& answer, const PreferenceOptions& o) { return o.beta * answer.mean(); }};
}

}  // namespace retort::distill
