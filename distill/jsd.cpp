// Generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD, arXiv 2306.13649, equation 1). The formula
// goes to 0 at both ends; divided by beta and by 1 - beta its limits there are forward and reverse KL, and as
// in GKD the ends are defined to be those.
#include "distill/loss.h"
#include "kernels/divergences.h"
#include "kernels/row_losses.h"

namespace retort::distill {

LossSpec jsd() {
  return {.name = "jsd",
          .formula =
              "T^2 (beta KL(p || m) + (1 - beta) KL(q || m)), m = beta p + (1 - beta) q; beta 0: KL(p || "
              "q), beta 1: KL(q || p)",
          .parameters = {"temperature", "beta"},
          .make = [](const LossOptions& options) -> kernels::RowLoss {
            using kernels::Divergence;
            if (options.beta == 0.0) return kernels::forward_kl_rows(options.temperature);
            if (options.beta == 1.0)
              return kernels::divergence_rows(Divergence::kReverseKl, options.temperature);
            return kernels::divergence_rows(Divergence::kJsd, options.temperature, options.beta);
          }};
}

}  // namespace retort::distill
