// Sampled labels (Anshumann et al. 2025, RS-KD, arXiv 2503.16870): cross-entropy against draws from the
// teacher, whose expectation is forward KL's. The draws come from a cache, or are made here from a live
// teacher with the same points of the unit interval at the same place of the corpus: a live teacher shows
// what its cache would do.
#include "distill/labels.h"
#include "distill/loss.h"
#include "kernels/sparse_losses.h"

namespace retort::distill {

LossSpec sampled() {
  return {.name = "sampled",
          .formula = "T^2 sum over ids of -(share of the draws) log q",
          .reads = Reads::kDraws,
          .parameters = {"temperature", "draws"},
          .divergence = false,
          .make = [](const LossOptions& o) -> kernels::RowLoss {
            const auto labels_of = [draws = o.draws > 0 ? o.draws : kDraws, T = o.temperature,
                                    seed = o.seed](const kernels::LogitRows& rows) {
              return rows.sparse.defined()
                         ? rows.sparse
                         : draw_labels(softened(rows.teacher_CV, T), draws, seed, rows.places_C);
            };
            return kernels::sparse_rows(labels_of, o.temperature);
          }};
}

}  // namespace retort::distill
