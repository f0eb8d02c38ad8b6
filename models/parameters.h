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
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/placement.h"

namespace retort::models {

// What a parameter is for: initialisers, weight decay and quantizers choose by it. kScale: a scale of a
// weight's grid, trained beside the weight (quantize/quantize_map.h); checkpoints hold it, and other files
// hold it as part of the weight. kObjective: what an objective learns beside the model (train/objective.h).
enum class Role {
  kMatrix,
  kEmbedding,
  kHead,
  kPositions,
  kNorm,
  kBias,
  kLoraA,
  kLoraB,
  kMagnitude,
  kScale,
  kObjective
};
inline bool is_adapter(Role role) {
  return role == Role::kLoraA || role == Role::kLoraB || role == Role::kMagnitude;
}

// The values of a frozen parameter, kept in a form that is smaller and made when they are wanted.
class Codes {
 public:
  virtual ~Codes() = default;
  virtual at::Tensor values() const = 0;  // f32, of the parameter's shape
  virtual uint64_t bytes() const = 0;
};

struct Parameter {
  std::string name;  // "layers.3.ffn.up.weight"
  Role role = Role::kMatrix;
  std::vector<int64_t> shape;  // of the whole parameter, at least one dimension
  Placement placement;
  bool frozen = false;         // by freeze()
  bool borrowed = false;       // by borrow()
  int64_t residual_depth = 0;  // > 0 where the product joins the residual stream: the executed layers there
  double offset = 0.0;         // what a norm adds to it in use: 1 where it multiplies by 1 + w
  at::Tensor master;           // f32
  at::Tensor working;  // a leaf of the used part; shares the master's storage until bind_working parts them
  std::shared_ptr<const Codes> codes;               // by keep_as(); master and working have no elements then
  std::vector<std::string> uses;                    // its own name and its aliases, in declaration order
  std::function<void(const at::Tensor&)> observer;  // of every input that a Linear multiplies it with
  std::function<at::Tensor(const at::Tensor&)> input_map;  // what becomes of that input first, or none

  int64_t numel() const { return c10::multiply_integers(shape); }
  // Takes it out of training: it has no gradient, no optimizer state and no decay, and counts for no norm;
  // checkpoints hold it. Call this before a map, an optimizer or a step is made of the parameters.
  void freeze();
  // Freezes it and says that it is another model's, which checkpoints name instead of holding it.
  void borrow();
  void keep_as(std::shared_ptr<const Codes> kept);  // instead of master and working; of a frozen one
  at::Tensor values() const { return codes ? codes->values() : master; }  // of the master
  // What a file without sharing holds: one for every use, but none for a tied head (GGUF keeps none) and
  // none of an adapter, which is merged (adapters.h).
  int64_t copies() const {
    if (is_adapter(role) || role == Role::kScale) return 0;
    return role == Role::kEmbedding ? 1 : static_cast<int64_t>(uses.size());
  }
};

// What joins the weight of one use: scale * B A, and with magnitudes m (DoRA) each row of the sum is
// brought to the length m. models/linear.h has the formulas.
struct LowRank {
  const Parameter* a = nullptr;          // [rank, in]; nullptr: nothing joins it
  const Parameter* b = nullptr;          // [out, rank]
  const Parameter* magnitude = nullptr;  // [out], or none
  double scale = 1.0;
  explicit operator bool() const { return a != nullptr; }
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

  // Adapters belong to uses: each use of shared weights ("layers.3.ffn.up.weight", an alias too) has its own.
  void join(std::string_view use, const LowRank& adapter);  // of the shapes that LowRank says
  const LowRank& adapter(std::string_view use) const;  // also of what joins later: the reference stays valid
  bool has_adapters() const;

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
  std::map<std::string, LowRank, std::less<>> adapters_;    // of every use, empty ones too
};

}  // namespace retort::models
