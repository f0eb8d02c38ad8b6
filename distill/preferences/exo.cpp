// Exact preference optimisation of a pair: Ji et al. 2024 (arXiv 2402.00856), equation 16. The reverse KL from
// the smoothed label (1 - e, e) to what the model thinks of the pair.
#include <cmath>

#include "distill/preference_loss.h"

namespace retort::distill {

PreferenceLoss exo() {
  return {.name = "exo",
          .formula = "q log(q / (1 - e)) + (1 - q) log((1 - q) / e), q = s(beta D), e = label_smoothing",
          .parameters = {"label_smoothing", "nll"},
          .of_pair = [](const Answer& chosen, const Answer& rejected, const PreferenceOptions& o) {
            const double x = o.beta * (chosen.gain() - rejected.gain());
            const double high = std::log1p(-o.label_smoothing), low = std::log(o.label_smoothing);
            return on_margin(logistic(x) * (log_logistic(x) - high) + logistic(-x) * (log_logistic(-x) - low),
                             logistic_slope(x) * (x - high + low), o.beta, o.beta);
          }};
}

}  // namespace retort::distill
