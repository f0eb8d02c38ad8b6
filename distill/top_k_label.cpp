// The likeliest ids, and the text's own next token for the rest of the mass, which becomes cross-entropy.
#include "distill/labels.h"
#include "distill/loss.h"
#include "kernels/sparse_losses.h"

namespace retort::distill {

LossSpec top_k_label() {
  return {.name = "top_k_label",
          .formula = "T^2 (sum over the k likeliest ids of -p log q, and -r log q(label), r = 1 - sum p)",
          .reads = Reads::kTop,
          .parameters = {"temperature", "k"},
          .divergence = false,
          .make = [](const LossOptions& o) -> kernels::RowLoss {
            const auto labels_of = [o](const kernels::LogitRows& rows) {
              kernels::SparseLabels labels = top_labels(rows, o.k, o.temperature);
              labels.ids_NK = at::cat({labels.ids_NK, rows.labels_C.unsqueeze(1)}, 1);
              labels.weights_NK = at::cat({labels.weights_NK, labels.rest_N.unsqueeze(1)}, 1);
              labels.rest_N = at::Tensor();
              return labels;
            };
            return kernels::sparse_rows(labels_of, o.temperature);
          }};
}

}  // namespace retort::distill
