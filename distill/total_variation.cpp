// Total variation distance (Wen et al. 2023, arXiv 2307.15190): symmetric and with a bounded gradient; learns
// slowly at first.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec total_variation() {
  return {
      .name = "total_variation", .formula = "T^2 1/2 sum |p - q|", .make = [](const LossOptions& options) {
        return kernels::divergence_rows(kernels::Divergence::kTotalVariation, options.temperature);
      }};
}

}  // namespace retort::distill
