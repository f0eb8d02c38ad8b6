// Quantization after training (docs/quantization.md): round to nearest, GPTQ (gptq.h), AWQ (awq.h), or scales
// searched for, where each input's mean square weighs the errors (importance.h). With `recover`, what lies on its grid
// already keeps its codes (recover.h). Layers go in order, and each sees what the quantized ones before it give; memory
// holds the calibration tokens' residual stream and one layer's Hessians (calibration.h). The embedding and a head of its
// own are rounded to nearest, first; a tensor that layers share is quantized once. The masters become the grids' values,
// so it is an ordinary f32 model from then on; with awq the norms and rows that take the scales change too. One thread.
// Deterministic at one thread count.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/log.h"
#include "core/section.h"
#include "quantize/calibration.h"
#include "quantize/importance.h"
#include "quantize/packing_map.h"
#include "quantize/quantize_map.h"

namespace retort::quantize {

struct PostTrainingOptions {
  std::string scheme = {};  // of schemes(), instead of method and the grids; "": none
  std::string method = "rtn";
  std::string calibration = {};  // token shards or an importance matrix; "": the training text
  int64_t tokens = 65536;
  double damping = 0.01;
  bool act_order = false;
  bool clip_search = false;
  bool recover = false;
  bool baselines = false;           // rtn and gptq on the same grids are judged too
  int64_t limit = 0;                // > 0: tokens that models are judged on
  std::string importance_out = {};  // where the measured importance matrix is written; "": nowhere
  bool calibrated() const { return method != "rtn"; }
  void describe(Section& s);
};
std::vector<std::string> method_names();
// Why the method cannot serve a tensor on the grid (`matrix`: of attention and feed-forward layers); "" when
// it can.
std::string method_misfit(const PostTrainingOptions& options, const Grid& grid, bool matrix);
// Why it cannot serve the model, whatever the grids.
std::string method_misfit(const PostTrainingOptions& options, models::Model& model);

// The identity on masters that are values of grids, with the codes that they are.
class CodesMap final : public PackingMap {
 public:
  struct Row {
    const Grid* grid;
    Quantized quantized;
    double relative_error;  // |w - q| / |w| against the weights that were rounded (with awq: scaled ones)
    std::optional<double> on_grid = {};  // with `recover`: the share of its groups that were on it
  };
  explicit CodesMap(std::map<std::string, Row> rows) : rows_(std::move(rows)) {}

  at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return x; }
  at::Tensor pull_back(const models::Parameter&, const at::Tensor& gradient) override { return gradient; }
  bool identity_for(const models::Parameter&) const override { return true; }
  const Grid* grid_of(const models::Parameter& p) const override;
  Quantized quantize(const models::Parameter& p) const override;
  double relative_error(const models::Parameter& p) const override;
  std::optional<double> on_grid(const std::string& parameter) const;  // Row::on_grid

 private:
  std::map<std::string, Row> rows_;  // by unique parameter
};

// What a calibrated method reads.
struct CalibrationInput {
  std::vector<models::TokenBlock> blocks;  // gptq, awq; imatrix where `importance` is absent
  std::optional<Importance> importance;
};

// `grids` says which grid each parameter takes. ConfigError where the method cannot work on one of them,
// NonFiniteError for weights that hold no numbers: both before any work.
std::unique_ptr<CodesMap> post_train(models::Model& model, const QuantizeMap& grids,
                                     const PostTrainingOptions& options, const CalibrationInput& input,
                                     Log& log);

// `grid` with a fit that searches: of the scales of s {1, .975, .. .5} the one with the least squared error,
// weighed by the importance, for every row of every span.
Grid with_clip_search(const Grid& grid);

}  // namespace retort::quantize
