// Adaptive KL (Wu et al. 2024, arXiv 2404.02657): forward KL fits the teacher's likely ids first and reverse
// KL the others, so each position weighs the two by where student and teacher still differ.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec adaptive_kl() {
  return {.name = "adaptive_kl",
          .formula =
              "T^2 (w KL(p || q) + (1 - w) KL(q || p)), w = the share of |p - q| on the likeliest ids with "
              "half of p, a constant for the gradient",
          .exact = false,
          .make = [](const LossOptions& options) {
            return kernels::divergence_rows(kernels::Divergence::kAdaptiveKl, options.temperature);
          }};
}

}  // namespace retort::distill
