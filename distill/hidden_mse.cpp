// Squared distance of hidden states through a learned projection (Romero et al. 2015, FitNets, arXiv
// 1412.6550), relative to the teacher's own length, so that it depends neither on widths nor on how far the
// residual stream has grown.
#include "distill/hidden_loss.h"

namespace retort::distill {

LossSpec hidden_mse() {
  return {.name = "hidden_mse",
          .formula = "mean over pairs of layers of |W h - h_t|^2 / |h_t|^2, W learned",
          .reads = Reads::kLayers,
          .parameters = {"layers", "teacher_layers"},
          .divergence = false,
          .make_hidden =
              [](const LossOptions& options, const Sides& sides) {
                return projected_pairs(options, sides, [](const at::Tensor& s_MD, const at::Tensor& t_MD) {
                  return (s_MD - t_MD).square().sum(1) / t_MD.square().sum(1).clamp_min(1e-12);
                });
              },
          .check_hidden = check_pairs};
}

}  // namespace retort::distill
