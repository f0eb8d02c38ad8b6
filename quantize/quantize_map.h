// Fake quantization as a WeightMap: master -> value on its grid, gradient straight through (Bengio et al.
// 2013). Once per optimizer step, nothing per micro-batch. Matrices, embeddings and head each have a grid;
// norms, biases and positions stay f32. A tied head is the embedding's storage and so takes the embedding's
// grid. Keeps no codes: a grid is a deterministic function, so pack() makes from a master the codes that
// apply() made of it, and nothing can go stale. Round-to-nearest is this map on masters trained without it.
// One rank owns it. Throws ConfigError.
#pragma once

#include <map>
#include <string>

#include "core/section.h"
#include "quantize/packing_map.h"

namespace retort::quantize {

struct GridChoice {
  std::string grid = "q4_0";  // a row of grids(), or "none": stays f32
  void describe(Section& s);
};

struct QuantizeOptions {
  GridChoice weights;
  GridChoice embedding{"q8_0"};
  GridChoice head{"q8_0"};          // an untied one
  std::string fallback = "refuse";  // or the grid, or none, of tensors whose rows theirs does not divide
  int64_t from_step = 0;            // before it the map is the identity
  void describe(Section& s);
};

class QuantizeMap final : public PackingMap {
 public:
  // Checks that every parameter fits its grid before anything runs (one ConfigError naming all that do not).
  QuantizeMap(const QuantizeOptions& options, const models::Parameters& parameters);

  // Off, the map is the identity. A change reaches the working copies with the next refresh_working().
  void enable(bool on) { enabled_ = on; }
  bool enabled() const override { return enabled_; }
  // Enables the map from options.from_step on. True when that changed it: call refresh_working() now.
  bool begin_step(int64_t step);

  at::Tensor apply(const models::Parameter& p, const at::Tensor& x) override;
  at::Tensor pull_back(const models::Parameter& p, const at::Tensor& gradient) override;
  bool identity_for(const models::Parameter& p) const override;  // independent of enable: a grid is or is not

  const Grid* grid_of(const models::Parameter& p) const override;
  Quantized quantize(const models::Parameter& p) const override;
  double relative_error(const models::Parameter& p) const override;

 private:
  std::map<std::string, const Grid*> grid_by_name_;
  int64_t from_step_;
  bool enabled_;
};

}  // namespace retort::quantize
