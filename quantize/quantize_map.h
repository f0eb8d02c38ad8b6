// Fake quantization as a WeightMap: master -> value on its grid. Once per optimizer step, nothing per
// micro-batch. Matrices, embeddings and head each have a grid, exceptions by name; norms, biases and
// positions stay f32. A tied head is the embedding's storage and so takes the embedding's grid.
//
//   gradients   straight through (Bengio et al. 2013); under learned scales by their rule (learned_scale.h)
//   scales      a function of the master, made again every step; on a learned grid a parameter of role kScale
//   inputs      Linear may fake-quantize what the quantized matrices multiply (activations.h)
//
// One rank owns it. Throws ConfigError; NonFiniteError for weights that are not finite.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/section.h"
#include "quantize/packing_map.h"

namespace retort::quantize {

struct GridChoice {
  std::string grid = "q4_0";  // a row of grids(), or "none": stays f32
  void describe(Section& s);
  bool operator==(const GridChoice&) const = default;
};

struct GridException {
  std::string match;  // a name, or a pattern in which * stands for anything: "layers.0.*"
  std::string grid = "none";
  void describe(Section& s);
  bool operator==(const GridException&) const = default;
};

struct QuantizeOptions {
  GridChoice weights;
  GridChoice embedding{"q8_0"};
  GridChoice head{"q8_0"};                 // an untied one
  std::vector<GridException> except = {};  // the first that matches any name of a tensor
  std::string fallback = "refuse";   // or the grid of tensors whose rows theirs does not divide: none, wider
  std::string activations = "none";  // a row of activation_kinds(): inputs of the quantized matrices
  int64_t from_step = 0;             // before it the map is the identity
  int64_t until_step = 0;            // > 0: and from it on
  void describe(Section& s);
  bool active(int64_t step) const { return step >= from_step && (until_step == 0 || step < until_step); }
};
// The grids and so the scales of the one serve the other.
bool same_grids(const QuantizeOptions& a, const QuantizeOptions& b);

// A learned grid's scales are parameters, "NAME_scale" f32 [out, 1]. That is how they get an optimizer state,
// a place in checkpoints and the same value on every rank. They are NaN until their first use fits them to
// the masters: at from_step, or by fit_scales(). A frozen weight's are frozen with it, and fitted all the
// same. The map keeps no codes: a grid is a deterministic function of master and scales, so pack() makes the
// codes that apply() made. Round-to-nearest is this map on masters trained without it.
class QuantizeMap final : public PackingMap {
 public:
  // Checks that every parameter fits its grid before anything runs (one ConfigError naming all that do not),
  // and declares the scales of learned grids, or takes those that are there already. `parameters` outlives
  // it.
  QuantizeMap(const QuantizeOptions& options, models::Parameters& parameters);

  // Off, the map is the identity. A change reaches the working copies with the next refresh_working().
  void enable(bool on);
  bool enabled() const override { return enabled_; }
  // Enables the map for this step or not, and fits scales at their first use.
  bool begin_step(int64_t step) override;
  // Fits the scales that have no value yet to the masters as they are, all rows or a rank's own. True if there were any.
  bool fit_scales();

  // A parameter whose grid fits scales to the whole tensor is one block; a learned scale's rows go with its
  // weight's.
  models::RowBlocks blocks(const models::Parameter& p) const override;
  at::Tensor apply(const models::Parameter& p, const at::Tensor& x) override;
  void apply_into(const models::Parameter& p, const at::Tensor& x, const at::Tensor& working) override;
  // Of a scale, the gradient that its weight's pull_back, which comes first, left for it.
  at::Tensor pull_back(const models::Parameter& p, const at::Tensor& gradient) override;
  bool identity_for(const models::Parameter& p) const override;  // independent of enable: a grid is or is not
  std::optional<kernels::FittedGrid> fitted_grid(const models::Parameter& p) const override;

  const Grid* grid_of(const models::Parameter& p) const override;
  Quantized quantize(const models::Parameter& p) const override;  // NonFiniteError when p is not finite
  double relative_error(const models::Parameter& p) const override;

 private:
  struct Entry {
    const Grid* grid = nullptr;
    models::Parameter* weight = nullptr;
    models::Parameter* theta = nullptr;  // of a learned grid
    at::Tensor theta_gradient;           // between the two pull_backs of a step
  };
  const Entry* entry_of(const models::Parameter& p) const;
  Quantized quantize(const Entry& entry, const at::Tensor& x) const;
  void fake_quantize(const Entry& entry, const at::Tensor& x, const at::Tensor& values) const;

  QuantizeOptions options_;
  std::map<std::string, Entry> entries_;          // by weight
  std::map<std::string, std::string> weight_of_;  // by scale
  bool enabled_ = false;
};

}  // namespace retort::quantize
