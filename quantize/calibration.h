// What a model's matrices see of a calibration text, layer by layer in bounded memory: for every group of
// matrices that read one input x (q, k and v; gate and up), the sum over tokens of x x^T, which is the
// Hessian of |W x - W' x|^2 up to a factor of two (Frantar et al. 2022, arXiv 2210.17323, eq. 3).
//
// Held are the residual stream of all calibration tokens, f32, and the sums of one layer. A layer's tensors
// that later layers use too (shared, repeated) are collected over all their uses, at the first of them: the
// layers up to the last use run for it with the weights that they have then. Which matrices belong to a
// layer, and which of them read the same x, is seen by running it, not known from names. I in_features. One
// thread; the model's observers are its own. Throws ConfigError, DataError.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "data/token_shards.h"
#include "models/model.h"

namespace retort::quantize {

struct InputGroup {
  std::vector<models::Parameter*> matrices;  // in the order in which they read x
  at::Tensor second_moment_II;               // f64, sum of x x^T
  int64_t tokens = 0;                        // how many x, over all uses
};

class Calibration {
 public:
  // `blocks`: what is read, a few rows each; working weights are f32. ConfigError for a model that is no
  // stack of layers.
  Calibration(models::Model& model, std::vector<models::TokenBlock> blocks);

  // The groups whose first use is in `layer`, from the stream as it is before that layer.
  std::vector<InputGroup> collect(int64_t layer);
  // Moves the stream through `layer` with the weights that it has now.
  void advance(int64_t layer);
  int64_t tokens() const;

 private:
  struct Use {
    int64_t first, last;  // layers that run the group
    std::vector<models::Parameter*> matrices;
  };
  void discover();

  models::Model& model_;
  models::LayerStack* stack_;
  std::vector<models::TokenBlock> blocks_;
  std::vector<at::Tensor> streams_BTD_;  // of each block
  std::vector<Use> uses_;                // in the order of first use
};

// About `tokens` tokens of the text: windows of `sequence` spread evenly over it, `rows` in a block.
// DataError where the text has ids that the model has not, or is shorter than a window.
std::vector<models::TokenBlock> calibration_blocks(const data::TokenShards& text, int64_t vocabulary,
                                                   int64_t tokens, int64_t sequence, int64_t rows);

}  // namespace retort::quantize
