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
        const auto labels_of = [o](const kernels::LogitRows& rows) {
          return top_labels(rows, o.k, o.temperature);
        };
        return kernels::sparse_rows(labels_of, o.temperature);
      }};
}

}  // namespace retort::distill
