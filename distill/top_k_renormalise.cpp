// The likeliest ids, made to add up to 1. The tail loses all its mass, so that the student becomes
// over-confident; below about 50 ids it is worse than no teacher (Anshumann et al. 2025, arXiv 2503.16870,
// table 1).
#include "distill/labels.h"
#include "distill/loss.h"
#include "kernels/sparse_losses.h"

namespace retort::distill {

LossSpec top_k_renormalise() {
  return {.name = "top_k_renormalise",
          .formula = "T^2 sum over the k likeliest ids of -(p / their sum) log q",
          .reads = Reads::kTop,
          .parameters = {"temperature", "k"},
          .divergence = false,
          .make = [](const LossOptions& o) -> kernels::RowLoss {
            const auto labels_of = [o](const kernels::LogitRows& rows) {
              kernels::SparseLabels labels = top_labels(rows, o.k, o.temperature);
              labels.weights_NK = labels.weights_NK / labels.weights_NK.sum(1, true);
              labels.rest_N = at::Tensor();
              return labels;
            };
            return kernels::sparse_rows(labels_of, o.temperature);
          }};
}

}  // namespace retort::distill
