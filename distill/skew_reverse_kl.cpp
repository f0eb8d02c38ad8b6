// Skew reverse KL (Ko et al. 2024, DistiLLM, arXiv 2402.03898, section 3.1): some of the student is mixed
// into the teacher, the other way round than in skew forward KL.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec skew_reverse_kl() {
  return {.name = "skew_reverse_kl",
          .formula = "T^2 KL(q || (1 - alpha) p + alpha q)",
          .parameters = {"temperature", "alpha"},
          .make = [](const LossOptions& options) {
            return kernels::divergence_rows(kernels::Divergence::kSkewReverseKl, options.temperature,
                                            options.alpha);
          }};
}

}  // namespace retort::distill
