// Gradients to masters. The state has one entry for every unique parameter that is not frozen, by its name, for the
// rows that this rank owns (train/owners.h). The kinds are rows of a table in optimizer.cpp; a new one is a file and a row. One
// thread, and the same bits with any number of at:: threads. Throws ConfigError for an unknown kind, or when
// there is nothing to train.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/section.h"
#include "formats/safetensors.h"
#include "kernels/adamw.h"
#include "train/trained.h"

namespace retort::train {

struct OptimizerOptions {
  std::string kind = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;      // of matrices and heads, decoupled from the gradient
  bool decay_embeddings = false;  // embeddings (a tied head with them) and learned positions too
  bool decay_all = false;         // norms, biases and adapters as well
  double lora_plus = 1.0;         // rate of the adapters' B and lengths, as a multiple of lr
  void describe(Section& s);
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update of every owned block. gradients[i] is of the rows of trained.all()[i] that this rank owns,
  // f32; a frozen parameter's is not read. `verdict` (kernels/gradient_norm.h), beside the masters, says what they are
  // multiplied by and whether there is an update at all; undefined: as they are. `copies` of the first of trained.all()
  // are written with their masters, where they are defined (models::copies_in_update()).
  virtual void step(const Trained& trained, const std::vector<at::Tensor>& gradients, double lr,
                    const at::Tensor& verdict = {}, const std::vector<kernels::WorkingCopy>& copies = {}) = 0;
  // The last step() was none, as its verdict had it: it does not count. The host learns that after the call.
  virtual void left_out() = 0;
  // For checkpoints: "adamw.m.layers.0...", views of what step() updates.
  virtual formats::NamedTensors state() const = 0;
  // Of each tensor of state() the parameter whose owned rows it has; nullptr: it is the same on every rank.
  virtual std::vector<const models::Parameter*> state_parameters() const = 0;
  // Copies this rank's rows of whole tensors. CheckpointError, and nothing is changed, unless names, dtypes and whole
  // shapes are the same.
  virtual void set_state(const std::map<std::string, at::Tensor>& state) = 0;
};

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const Trained& trained);
std::vector<std::string> optimizer_kinds();

}  // namespace retort::train
