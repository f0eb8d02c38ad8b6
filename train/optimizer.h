// Gradients to masters. State is by parameter name, one entry a unique parameter, and says nothing of ranks.
// AdamW (Loshchilov and Hutter 2019), LibTorch's order: epsilon is added after the bias-corrected root.
//   p *= 1 - lr * wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr * (m / (1-b1^t)) / (sqrt(v) / sqrt(1-b2^t) + eps)
// One thread. Throws ConfigError for an unknown kind.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/section.h"
#include "formats/safetensors.h"
#include "models/parameters.h"

namespace retort::train {

struct OptimizerOptions {
  std::string kind = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  bool decay_embeddings = false;  // norms and biases are never decayed unless decay_all
  bool decay_all = false;
  void describe(Section& s);
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update of every master. gradients[i] belongs to parameters.unique()[i], f32, master's shape.
  virtual void step(models::Parameters& parameters, const std::vector<at::Tensor>& gradients, double lr) = 0;
  // For checkpoints: "adamw.m.layers.0..."; set_state demands the same names and shapes (CheckpointError).
  virtual formats::NamedTensors state() const = 0;
  virtual void set_state(const std::map<std::string, at::Tensor>& state) = 0;
};

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const models::Parameters& parameters);
std::vector<std::string> optimizer_kinds();

}  // namespace retort::train
