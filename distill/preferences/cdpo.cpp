// Conservative DPO: cross-entropy with smoothed labels. Mitchell 2023, "A note on DPO with noisy preferences";
// what torchtune's and CPO's label smoothing are. Another loss than robust.
#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss cdpo() {
  return {.name = "cdpo",
          .formula = "-(1 - e) log s(beta D) - e log s(-beta D), e = label_smoothing",
          .parameters = {"label_smoothing", "nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.gain() - rejected.gain()), e = o.label_smoothing;
            return on_margin(-(1 - e) * log_logistic(x) - e * log_logistic(-x),
                             -(1 - e) * logistic(-x) + e * logistic(x), o.beta, o.beta);
          }};
}

}  // namespace retort::distill
