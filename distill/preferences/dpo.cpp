// Direct preference optimisation: Rafailov et al. 2023 (arXiv 2305.18290), equation 7.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss dpo() {
  return {.name = "dpo",
          .formula = "-log s(beta D), s the logistic function",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.gain() - rejected.gain());
            return on_margin(-log_logistic(x), -logistic(-x), o.beta, o.beta);
          }};
}

}  // namespace retort::distill
