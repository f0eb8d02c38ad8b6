// From master to working weights, once per optimizer step, and the gradient back the same way. Mixed
// precision and quantization-aware training are both this one idea.
//
//   working = cast(map.apply(p, master));   d loss/d master = map.pull_back(p, d loss/d working)
//
// map.apply gives f32: a run's figures are evaluated on it and the exporter packs what it made. The cast to
// the working dtype comes last and rounds once more, which training steps bear and figures would not.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "kernels/adamw.h"
#include "models/parameters.h"

namespace retort::models {

// A rank owns its map. apply and apply_into may run for several parameters at once, pull_back for several
// that are not scales; nothing else may.
class WeightMap {
 public:
  virtual ~WeightMap() = default;
  // Moves the map to update `step`, before its forward pass; a run that continues moves it to its last update
  // first. True when apply() makes other values than before, so that working copies have to be refreshed.
  virtual bool begin_step(int64_t /*step*/) { return false; }
  // The blocks by which p may be divided among owners: larger ones than cut_into_blocks() gives where the map
  // makes values from more than a row.
  virtual RowBlocks blocks(const Parameter& p) const { return cut_into_blocks(p.shape); }
  // f32 in, f32 out, same shape. `x` is the master, or has its shape, or that of the rows that this rank owns.
  virtual at::Tensor apply(const Parameter& p, const at::Tensor& x) = 0;
  // Writes the used part of apply(p, x), cast, into `working`. A map overrides it that needs no copy in
  // between.
  virtual void apply_into(const Parameter& p, const at::Tensor& x, const at::Tensor& working) {
    working.copy_(p.placement.used.of(apply(p, x)));
  }
  // The gradient with respect to x, all of it or the owned rows, f32, from that of apply's result, which it may overwrite.
  virtual at::Tensor pull_back(const Parameter& p, const at::Tensor& gradient) = 0;
  virtual bool identity_for(const Parameter&) const { return false; }  // apply returns x itself
  // The grid that apply() rounds to, where a value follows from its group alone and kernels have the formula.
  virtual std::optional<kernels::FittedGrid> fitted_grid(const Parameter&) const { return {}; }
};

class IdentityMap final : public WeightMap {
 public:
  at::Tensor apply(const Parameter&, const at::Tensor& x) override { return x; }
  at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  bool identity_for(const Parameter&) const override { return true; }
};

// Cuts the parameters into the map's blocks and makes the working copies: `matrix_dtype` (f32 or bf16) for
// matrices, embeddings and heads; norms, biases, learned positions and adapters stay f32. Where the map is
// the identity and the dtype is f32, working shares the master's storage and a refresh costs nothing. Call it
// again when the map or the dtype changes; set hooks after it.
void bind_working(Parameters& parameters, WeightMap& map, at::ScalarType matrix_dtype);
// Rebuilds the working copies in place from the masters: after a load, or when the map has changed.
void refresh_working(Parameters& parameters, WeightMap& map);
// The working copies that an update's kernel writes with their masters (kernels/adamw.h): one a parameter in the order of
// parameters.unique(), undefined where it cannot. Of masters that this rank owns whole.
std::vector<kernels::WorkingCopy> copies_in_update(const Parameters& parameters, const WeightMap& map);
// The same as refresh_working() for those that an optimizer step moves, all but the frozen ones, unless it has written them.
void refresh_trained(Parameters& parameters, WeightMap& map,
                     const std::vector<kernels::WorkingCopy>& written = {});
// The gradients of the masters from those of the working copies (which it may overwrite), both in the order
// of parameters.unique(); a frozen parameter's are undefined. A scale's comes from what its weight's
// pull_back left, so scales are last.
std::vector<at::Tensor> pull_back(const Parameters& parameters, WeightMap& map,
                                  const std::vector<at::Tensor>& working);

}  // namespace retort::models
