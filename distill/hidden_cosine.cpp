// Angle between hidden states, through a learned projection (Sanh et al. 2019, DistilBERT, arXiv 1910.01108).
#include "distill/hidden_loss.h"

namespace retort::distill {

LossSpec hidden_cosine() {
  return {.name = "hidden_cosine",
          .formula = "mean over pairs of layers of 1 - cos(W h, h_t), W learned",
          .reads = Reads::kLayers,
          .parameters = {"layers", "teacher_layers"},
          .divergence = false,
          .make_hidden =
              [](const LossOptions& options, const Sides& sides) {
                return projected_pairs(options, sides, [](const at::Tensor& s_MD, const at::Tensor& t_MD) {
                  return 1.0 - at::cosine_similarity(s_MD, t_MD, 1, 1e-6);
                });
              },
          .check_hidden = check_pairs};
}

}  // namespace retort::distill
