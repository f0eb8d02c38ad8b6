// What is minimised: (model, batch) -> a sum over valid tokens. Sums, never means: the step divides by the
// count over all micro-batches and ranks, so one batch, four micro-batches and four ranks give one gradient.
// The head product lives here (kernels/linear_loss.h), not in the model. One rank, one thread.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "data/batch_stream.h"
#include "models/model.h"

namespace retort::train {

struct LossSum {
  at::Tensor sum;                 // f32 scalar, differentiable, over the batch's valid labels
  std::vector<at::Tensor> parts;  // detached scalars in the order of part_names(), sums too
};

class Objective {
 public:
  virtual ~Objective() = default;
  // Before the step's first micro-batch: for weights that follow the step. A pure function of it.
  virtual void begin_step(int64_t /*step*/) {}
  virtual LossSum operator()(models::Model& model, const data::Batch& batch) = 0;
  virtual std::vector<std::string> part_names() const = 0;  // what metrics call the parts: "ce", "forward_kl"
};

// -log p(label), nats.
std::unique_ptr<Objective> make_cross_entropy();

}  // namespace retort::train
