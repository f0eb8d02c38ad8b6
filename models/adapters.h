// Low-rank adapters on a model. Where they come from: the spec, for layers that share a network (lora_rank), or adapt(),
// for fine-tuning a base that stays as it is. models/linear.h has their formulas, docs/finetuning.md the names. Tensors,
// beside the name of the use, of which each has an adapter of its own:
//
//   NAME.lora_a.weight [rank, in]    U(-1/sqrt(in), 1/sqrt(in)); of an embedding, [V, D] here as any weight, N(0, 1)
//   NAME.lora_b.weight [out, rank]   0
//   NAME.lora_m.weight [out]         the lengths of the weight's rows (DoRA); of an embedding [D], its columns'
//
// Throws ConfigError naming the key of the recipe's section.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/section.h"
#include "models/model.h"
#include "models/weight_map.h"

namespace retort::models {

struct ModuleRank {
  std::string modules;
  int64_t rank = 0;
  double alpha = 0.0;
  void describe(Section& s);
  bool operator==(const ModuleRank&) const = default;
};

struct AdapterOptions {
  std::vector<std::string> modules = {"all-linear"};
  std::string pattern;
  std::vector<std::string> exclude;
  std::vector<int64_t> layers;
  int64_t rank = 8;
  double alpha = 16.0;
  bool rslora = false, dora = false, tied = false;
  std::vector<ModuleRank> overrides;
  std::vector<std::string> whole;
  std::string base = "f32";  // what the matrices of the base are kept as: a row of frozen_codes.h
  void describe(Section& s);
  bool operator==(const AdapterOptions&) const = default;
};

struct LowRankShape {
  int64_t rank = 0;
  double scale = 1.0;
  bool magnitudes = false;
};

// A weight that gets an adapter.
struct AdaptedModule {
  std::string name;               // "model.layers.0.self_attn.qkv_proj"
  std::vector<std::string> uses;  // ours, in row order: "layers.0.attn.q.weight", ...
  Role role = Role::kMatrix;
  LowRankShape shape = {};
  bool tied = false;                                 // of the embedding: serves the tied head too
  int64_t rows(const Parameters& parameters) const;  // of all uses
};
// What the options choose, in the order of the family's files. ConfigError for an entry that matches nothing.
std::vector<AdaptedModule> adapted_modules(const Model& base, const AdapterOptions& options);

// ConfigError for an entry of exclude or overrides that meets none of the chosen weights: a slip in a recipe. An adapter of
// others may have such entries (peft passes them by), so reading one does not call this.
void check_choices(const Model& base, const AdapterOptions& options);

// A parameter that is trained whole.
struct WholeParameter {
  std::string name;  // "model.norm.weight"
  std::string use;   // ours
  bool transposed = false;
};
std::vector<WholeParameter> whole_parameters(const Model& base, const AdapterOptions& options);

// Declares the tensors of one adapter and joins it to the uses, which share its A.
void add_low_rank(Parameters& parameters, const std::vector<std::string>& uses, const LowRankShape& shape);

// The model with adapters, whose values come from streams named after them, so that neither order nor ranks
// count. All of the base is borrowed (Parameter::borrow) but what is trained whole. A tied model of which one
// side is trained whole comes back untied. On at::kMeta only shapes. Working weights are the caller's to
// bind.
std::unique_ptr<Model> adapt(std::unique_ptr<Model> base, const AdapterOptions& options, uint64_t seed);

// The model of the same spec with the same adapters. What they borrow is shared and must not be written; no
// other values are set.
std::unique_ptr<Model> same_shape(const Model& model);

// The shape of what merge_adapters() makes, but for a tie that it may undo.
DecoderSpec without_adapters(DecoderSpec spec);

// The plain model that computes the same: every layer with tensors of its own, W + s B A where a use had an
// adapter; untied where an adapter is on one side of the tie. Values are those that `map` makes (f32);
// working weights are bound to identity f32.
std::unique_ptr<Model> merge_adapters(const Model& model, WeightMap& map);

// Of the values of every use's master, for recognising a base: sharing does not show in it.
std::string weights_digest(const Parameters& parameters);

}  // namespace retort::models
