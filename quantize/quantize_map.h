// Fake quantization as a WeightMap: master -> value on its grid, gradient straight through. Once per optimizer
// step, nothing per micro-batch. Matrices, embeddings and head each have a grid; norms, biases and positions
// stay f32. A tied head is the embedding's storage and so takes the embedding's grid.
// Keeps the codes of the last apply(), for export. One rank owns it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/section.h"
#include "models/weight_map.h"
#include "quantize/grid.h"

namespace retort::quantize {

struct GridChoice {
  std::string grid = "q4_0";
  void describe(Section& s);
};

struct QuantizeOptions {
  GridChoice weights;
  GridChoice embedding{"q8_0"};
  GridChoice head{"q8_0"};       // an untied one
  int64_t from_step = 0;         // before it the map is the identity
  void describe(Section& s);
};

class QuantizeMap final : public models::WeightMap {
 public:
  // Checks that every parameter fits its grid before anything runs (ConfigError naming all that do not).
  QuantizeMap(const QuantizeOptions& options, const models::Parameters& parameters);
  void enable(bool on) { enabled_ = on; }
  bool enabled() const { return enabled_; }
  at::Tensor apply(const models::Parameter& p, const at::Tensor& x) override;
  at::Tensor pull_back(const models::Parameter& p, const at::Tensor& gradient) override;
  bool identity_for(const models::Parameter& p) const override;  // independent of enable: a grid is or is not

  const Grid* grid_of(const models::Parameter& p) const;  // nullptr: not quantized
  // The packed form of apply(p, p.master), from the same codes; f32 for unquantized parameters.
  formats::PackedTensor pack(const models::Parameter& p);

 private:
  std::map<std::string, const Grid*> grid_by_name_;
  bool enabled_ = true;
};

// One line of the report: a tensor, its grid, bits, and relative RMS error against the master.
struct TensorReport {
  std::string name, grid;
  int64_t elements = 0;
  double bits = 32, relative_error = 0;
};
std::vector<TensorReport> report(QuantizeMap& map, const models::Parameters& parameters);

}  // namespace retort::quantize
