// The text's own label, beside a teacher or without one. A label has no temperature.
#include "distill/loss.h"
#include "kernels/row_losses.h"

namespace retort::distill {

LossSpec cross_entropy() {
  return {.name = "cross_entropy",
          .formula = "-log q(label)",
          .reads = Reads::kNothing,
          .parameters = {},
          .divergence = false,
          .make = [](const LossOptions&) { return kernels::cross_entropy_rows(); }};
}

}  // namespace retort::distill
