// A hinge on DPO's margin: RSO, Liu et al. 2023 (arXiv 2309.06657), equation 11.
#include <algorithm>

#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss hinge() {
  return {.name = "hinge",
          .formula = "max(0, 1 - beta D)",
          .parameters = {"nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.gain() - rejected.gain());
            return on_margin(std::max(0.0, 1.0 - x), x < 1.0 ? -1.0 : 0.0, o.beta, o.beta);
          }};
}

}  // namespace retort::distill
