// What is minimised: a sum over a batch, of a loss for each label (or for each pair of rows). Sums, never
// means: the step divides by their count over all micro-batches and ranks, so that one batch, four
// micro-batches and four ranks give one gradient. The head product is made here (kernels/linear_loss.h), not
// in the model; what a model thinks of a whole row is models/row_log_probability.h. The objectives are rows
// of a table in distill/objectives.h. One rank, one thread.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/batch_stream.h"
#include "models/model.h"

namespace retort::train {

// What an objective's sums have one loss for.
struct Counted {
  std::string name;                         // in metrics: "labels"
  int64_t (*in)(const data::Batch& batch);  // how many of them
};
inline Counted labels() {
  return {"labels", [](const data::Batch& batch) { return batch.valid_labels(); }};
}

// Begins the names of what objectives learn, so that checkpoints can tell it from the model.
inline constexpr std::string_view kLearnedPrefix = "objective.";

struct LossSum {
  at::Tensor sum;                 // f32 or f64 scalar, differentiable, over what is counted in the batch
  std::vector<at::Tensor> parts;  // detached scalars in the order of part_names(), sums too
};

class Objective {
 public:
  virtual ~Objective() = default;
  // This rank's micro-batches of a step as they are trained on, before anything of them is counted: an objective may
  // put answers of the model's own in their place. The working weights are the step's.
  virtual std::vector<data::Batch> prepare(models::Model& /*model*/, int64_t /*step*/,
                                           const std::vector<data::Batch>& batches) {
    return batches;
  }
  // Before the step's first micro-batch: for weights that follow the step. A pure function of it.
  virtual void begin_step(int64_t /*step*/) {}
  virtual LossSum operator()(models::Model& model, const data::Batch& batch) = 0;
  // Why a call follows from more than the values of the batch's tensors and of weights, where those are, so that it cannot be
  // repeated as a graph (train/micro_graph.h): it looks at the host, or at the step. "": it does not.
  virtual std::string not_repeatable() const { return "an objective that looks at the host"; }
  virtual std::vector<std::string> part_names() const = 0;  // what metrics call the parts: "ce", "forward_kl"
  virtual Counted counted() const { return labels(); }
  // What metrics show for the parts, of their means over what is counted: a part may be of some of it only.
  virtual std::vector<double> figures(std::vector<double> means) const { return means; }
  // What it learns beside the model, f32, or nullptr: trained and kept in checkpoints, and in no other file.
  virtual models::Parameters* learned() { return nullptr; }
};

// -log p(label), nats.
std::unique_ptr<Objective> make_cross_entropy();

}  // namespace retort::train
