// Unbiased where a share e of the pairs is exchanged: Chowdhury et al. 2024 (arXiv 2403.00409), equation 8.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss robust() {
  return {.name = "robust",
          .formula = "(-(1 - e) log s(beta D) + e log s(-beta D)) / (1 - 2 e), e = label_smoothing",
          .parameters = {"label_smoothing", "nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.gain() - rejected.gain()), e = o.label_smoothing;
            const double value = -(1 - e) * log_logistic(x) + e * log_logistic(-x),
                         slope = -(1 - e) * logistic(-x) - e * logistic(x);
            return on_margin(value / (1 - 2 * e), slope / (1 - 2 * e), o.beta, o.beta);
          }};
}

}  // namespace retort::distill
