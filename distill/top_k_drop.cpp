// The likeliest ids as they are, which add up to less than 1. For comparison: it has the fixed point of
// top_k_renormalise and reaches it more slowly.
#include "distill/labels.h"
#include "distill/loss.h"
#include "kernels/sparse_losses.h"

namespace retort::distill {

LossSpec top_k_drop() {
  return {.name = "top_k_drop",
          .formula = "T^2 sum over the k likeliest ids of -p log q",
          .reads = Reads::kTop,
          .parameters = {"temperature", "k"},
          .divergence = false,
          .make = [](const LossOptions& o) -> kernels::RowLoss {
            const auto labels_of = [o](const kernels::LogitRows& rows) {
              kernels::SparseLabels labels = top_labels(rows, o.k, o.temperature);
              labels.rest_N = at::Tensor();
              return labels;
            };
            return kernels::sparse_rows(labels_of, o.temperature);
          }};
}

}  // namespace retort::distill
