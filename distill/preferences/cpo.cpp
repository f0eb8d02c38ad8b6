// Contrastive preference optimisation: DPO with a uniform reference, beside the chosen answer's likelihood. Xu
// et al. 2024 (arXiv 2401.08417), equation 5.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss cpo() {
  return {.name = "cpo",
          .formula = "-log s(beta (l_c - l_r))",
          .needs_reference = false,
          .parameters = {"nll"},
          .nll = 1.0,
          .of_pair =
              [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
                const double x = o.beta * (chosen.log_p - rejected.log_p);
                return on_margin(-log_logistic(x), -logistic(-x), o.beta, o.beta);
              },
          .reward = [](const Answer& answer, const PreferenceOptions& o) { return o.beta * answer.log_p; }};
}

}  // namespace retort::distill
