// From master to working weights, once per optimizer step, and the gradient back the same way. Mixed
// precision, quantization-aware training and, later, sharded parameters are all this one idea.
//
//   working = cast(map.apply(p, master));   d loss/d master = map.pull_back(p, d loss/d working)
//
// map.apply gives f32: the figures of a run are evaluated on it, and the exporter packs what it made. The
// cast to the working dtype comes last and rounds once more (fine for training steps, not for the figure).
// A rank owns its map. apply and apply_into may run for several parameters at once, pull_back for several
// that are not scales; nothing else may.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "models/parameters.h"

namespace retort::models {

class WeightMap {
 public:
  virtual ~WeightMap() = default;
  // f32 in, f32 out, same shape. `x` is the master, or what the map before made of it.
  virtual at::Tensor apply(const Parameter& p, const at::Tensor& x) = 0;
  // apply, cast, into `working`, dense and of p's shape: for maps that need no copy in between.
  virtual void apply_into(const Parameter& p, const at::Tensor& x, const at::Tensor& working) {
    working.copy_(apply(p, x));
  }
  // The gradient with respect to x, f32, given the one with respect to apply's result, which it may
  // overwrite.
  virtual at::Tensor pull_back(const Parameter& p, const at::Tensor& gradient) = 0;
  virtual bool identity_for(const Parameter&) const { return false; }  // apply returns x itself
};

class IdentityMap final : public WeightMap {
 public:
  at::Tensor apply(const Parameter&, const at::Tensor& x) override { return x; }
  at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  bool identity_for(const Parameter&) const override { return true; }
};

// The maps one after another.
class ChainMap final : public WeightMap {
 public:
  explicit ChainMap(std::vector<std::unique_ptr<WeightMap>> maps);
  at::Tensor apply(const Parameter& p, const at::Tensor& x) override;
  at::Tensor pull_back(const Parameter& p, const at::Tensor& gradient) override;
  bool identity_for(const Parameter& p) const override;

 private:
  std::vector<std::unique_ptr<WeightMap>> maps_;
};

// Makes the working copies: `matrix_dtype` (f32 or bf16) for matrices, embeddings and heads; norms, biases
// and learned positions stay f32. Where the map is the identity and the dtype is f32, working shares the
// master's storage and refresh costs nothing. Call again when the map or dtype changes; hooks must be set
// after it.
void bind_working(Parameters& parameters, WeightMap& map, at::ScalarType matrix_dtype);
// Rebuilds the working copies in place from the masters: after an optimizer step or a load.
void refresh_working(Parameters& parameters, WeightMap& map);
// The gradients of the masters from those of the working copies (which it may overwrite), both in the order
// of parameters.unique(). A scale's comes from what its weight's pull_back left, so scales are last.
std::vector<at::Tensor> pull_back(const Parameters& parameters, WeightMap& map,
                                  const std::vector<at::Tensor>& working);

}  // namespace retort::models
