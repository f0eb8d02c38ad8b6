// The likeliest ids, and all others as one (Anshumann et al. 2025, arXiv 2503.16870, section 3): the tail has
// the teacher's mass and the student's own shape.
#include "distill/labels.h"
#include "distill/loss.h"
#include "kernels/sparse_losses.h"

namespace retort::distill {

LossSpec top_k_ghost() {
  return {
      .name = "top_k_ghost",
      .formula = "T^2 (sum over the k likeliest ids of -p log q, and -r log(q of all others), r = 1 - sum p)",
      .reads = Reads::kTop,
      .parameters = {"temperature", "k"},
      .divergence = false,
      .make = [](const LossOptions& o) -> kernels::RowLoss {
        return [o](const kernels::LogitRows& rows, double scale, at::Tensor& gradient_CV) {
          return kernels::sparse_cross_entropy(rows, top_labels(rows, o.k, o.temperature), o.temperature,
                                               scale, gradient_CV);
        };
      }};
}

}  // namespace retort::distill
