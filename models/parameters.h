// A model's tensors: unique parameters with a master and a working copy, and declared aliases.
//
//   master    f32: what the optimizer updates, checkpoints hold and exporters read
//   working   what the forward pass uses and gradients arrive at. A WeightMap makes it from the master once
//             an optimizer step (weight_map.h); it stays the same tensor object, which keeps its hooks
//
// One thread (one rank) owns a Parameters. Throws ShapeError, and InternalError for unknown or duplicate
// names.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/placement.h"

namespace retort::models {

// What a parameter is for: initialisers, weight decay and quantizers choose by it. kScale: a scale of a
// weight's grid, trained beside the weight (quantize/quantize_map.h); checkpoints hold it, and other files
// hold it as part of the weight. kObjective: what an objective learns beside the model (train/objective.h).
enum class Role { kMatrix, kEmbedding, kHead, kPositions, kNorm, kBias, kLoraA, kLoraB, kScale, kObjective };
inline bool is_adapter(Role role) { return role == Role::kLoraA || role == Role::kLoraB; }

struct Parameter {
  std::string name;  // "layers.3.ffn.up.weight"
  Role role = Role::kMatrix;
  std::vector<int64_t> shape;  // of the whole parameter, at least one dimension
  Placement placement;
  bool frozen = false;         // by freeze()
  int64_t residual_depth = 0;  // > 0 where the product joins the residual stream: the executed layers there
  double offset = 0.0;         // what a norm adds to it in use: 1 where it multiplies by 1 + w
  at::Tensor master;           // f32
  at::Tensor working;  // a leaf of the used part; shares the master's storage until bind_working parts them
  std::vector<std::string> uses;                    // its own name and its aliases, in declaration order
  std::function<void(const at::Tensor&)> observer;  // of every input that a Linear multiplies it with
  std::function<at::Tensor(const at::Tensor&)> input_map;  // what becomes of that input first, or none

  int64_t numel() const { return c10::multiply_integers(shape); }
  // Takes it out of training: it has no gradient, no optimizer state and no decay, and counts for no norm;
  // checkpoints hold it. Call this before a map, an optimizer or a step is made of the parameters.
  void freeze();
  // What a file without sharing holds: one for every use, but none for a tied head (GGUF keeps none) and
  // none of an adapter, which is merged (adapters.h).
  int64_t copies() const {
    if (is_adapter(role) || role == Role::kScale) return 0;
    return role == Role::kEmbedding ? 1 : static_cast<int64_t>(uses.size());
  }
};

// Sharing is declared, not discovered: alias("lm_head.weight", "embed.weight") makes one storage, one
// optimizer state, summed gradients and one copy on disk. Everything iterates over unique parameters; only an
// exporter to a format without aliases expands them.
class Parameters {
 public:
  // On at::kMeta shapes are declared and nothing is allocated: for counting.
  explicit Parameters(at::Device device = at::kCPU) : device_(device) {}
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  // Declares a parameter; the master is allocated, not initialised. The reference stays valid.
  Parameter& add(std::string name, at::IntArrayRef shape, Role role, int64_t residual_depth = 0);
  // Declares that `alias` is `target`, which is declared already (a parameter or another alias).
  void alias(std::string alias, std::string_view target);

  Parameter& at(std::string_view name);  // through aliases
  const Parameter& at(std::string_view name) const;
  bool contains(std::string_view name) const;

  std::deque<Parameter>& unique() { return unique_; }  // declaration order
  const std::deque<Parameter>& unique() const { return unique_; }
  // A tied head: an alias of an embedding. File formats leave it out.
  bool is_tied_head(std::string_view name) const;

  int64_t stored() const;    // elements of the model's unique parameters
  int64_t expanded() const;  // elements of all copies

 private:
  void declare(std::string name, Parameter& p);
  at::Device device_;
  std::deque<Parameter> unique_;
  std::map<std::string, Parameter*, std::less<>> by_name_;  // aliases included
};

}  // namespace retort::models
