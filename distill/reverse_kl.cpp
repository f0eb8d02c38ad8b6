// Reverse KL (Gu et al. 2024, MiniLLM, arXiv 2306.08543) seeks the teacher's modes. For a trained student, on
// text of its own; from scratch it does far worse than forward KL.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec reverse_kl() {
  return {.name = "reverse_kl",
          .formula = "T^2 KL(q || p); p counts as at least e^-87",
          .make = [](const LossOptions& options) {
            return kernels::divergence_rows(kernels::Divergence::kReverseKl, options.temperature);
          }};
}

}  // namespace retort::distill
