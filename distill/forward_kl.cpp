// Forward KL (Hinton et al. 2015, arXiv 1503.02531) covers everything that the teacher finds likely. The
// default.
#include "distill/loss.h"
#include "kernels/row_losses.h"

namespace retort::distill {

LossSpec forward_kl() {
  return {.name = "forward_kl",
          .formula = "T^2 KL(p || q), p = teacher, q = student, both at temperature T",
          .make = [](const LossOptions& options) { return kernels::forward_kl_rows(options.temperature); }};
}

}  // namespace retort::distill
