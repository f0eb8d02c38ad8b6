// Squared difference of centred logits (Ba and Caruana 2014, arXiv 1312.6184): the limit of tempered KL at
// high temperature, up to a factor.
#include "distill/loss.h"
#include "kernels/divergences.h"

namespace retort::distill {

LossSpec logit_mse() {
  return {.name = "logit_mse",
          .formula = "mean over ids of the squared difference of logits, each less its mean",
          .parameters = {},
          .make = [](const LossOptions&) { return kernels::logit_mse_rows(); }};
}

}  // namespace retort::distill
