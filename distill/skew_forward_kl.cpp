// Skew forward KL (Ko et al. 2024, DistiLLM, arXiv 2402.03898, section 3.1): some of the teacher is mixed
// into the student, which bounds the gradient.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec skew_forward_kl() {
  return {.name = "skew_forward_kl",
          .formula = "T^2 KL(p || alpha p + (1 - alpha) q)",
          .parameters = {"temperature", "alpha"},
          .make = [](const LossOptions& options) {
            return kernels::divergence_rows(kernels::Divergence::kSkewForwardKl, options.temperature,
                                            options.alpha);
          }};
}

}  // namespace retort::distill
