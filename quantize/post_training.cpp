#include "quantize/post_training.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "formats/finite_values.h"
#include "quantize/awq.h"
#include "quantize/gptq.h"
#include "quantize/recover.h"
#include "quantize/scheme.h"

namespace retort::quantize {
namespace {

using models::Parameter;
using models::Role;

void check_finite(const models::Parameters& parameters) {
  for (const Parameter& p : parameters.unique())  // a learned scale has no value before training
    if (p.role != Role::kScale) formats::check_finite("[quantize]", p.name, p.master);
}

// Every grid that some parameter takes must be one that the method can serve.
void check_method(const models::Parameters& parameters, const QuantizeMap& grids,
                  const PostTrainingOptions& options) {
  for (const Parameter& p : parameters.unique()) {
    const Grid* grid = grids.grid_of(p);
    if (grid == nullptr) continue;
    const std::string why = method_misfit(options, *grid, p.role == Role::kMatrix);
    check<ConfigError>(why.empty(), "[quantize] {}: {}", p.name, why);
  }
}

class PostTraining {
 public:
  PostTraining(models::Model& model, const QuantizeMap& grids, const PostTrainingOptions& options,
               const CalibrationInput& input, Log& log)
      : model_(model), grids_(grids), options_(options), input_(input), log_(log) {}

  std::map<std::string, CodesMap::Row> run() {
    for (const Parameter& p : model_.parameters().unique())
      if (const Grid* grid = grids_.grid_of(p); grid != nullptr && searches_for(p) && !grid->searches)
        clipped_.emplace(grid->name, with_clip_search(*grid));
    std::optional<Importance> importance;
    if (options_.method == "imatrix")
      importance = input_.importance ? input_.importance : measure_importance(model_, input_.blocks, log_);
    for (Parameter& p : model_.parameters().unique())
      if (p.role != Role::kMatrix) round(p, {});
    if (options_.method == "gptq" || options_.method == "awq") {
      by_layers();
    } else {
      for (Parameter& p : model_.parameters().unique())
        if (p.role == Role::kMatrix)
          round(p, importance ? importance->mean_square_I.at(p.name) : at::Tensor());
    }
    return std::move(rows_);
  }

 private:
  void by_layers() {
    Calibration calibration(model_, input_.blocks);
    const int64_t layers = model_.layers();
    Progress progress(log_, options_.method, layers);
    for (int64_t layer = 0; layer < layers; ++layer) {
      std::vector<InputGroup> groups = calibration.collect(layer);
      if (options_.method == "awq")
        for (InputGroup& group : groups) scale_inputs(group);
      for (const InputGroup& group : groups) quantize(group);
      calibration.advance(layer);
      progress.update(layer + 1);
    }
    progress.finish();
  }

  void scale_inputs(InputGroup& group) {
    const bool on_grids = std::all_of(group.matrices.begin(), group.matrices.end(),
                                      [&](const Parameter* p) { return grids_.grid_of(*p) != nullptr; });
    if (!on_grids || input_makers(model_, group).empty()) return;
    fold_scales(model_, group, awq_scales(group, [&](const Parameter& p, const at::Tensor& w_OI) {
                  return dequantize_blocks(grid_of(p)->quantize(w_OI));
                }));
  }

  void quantize(const InputGroup& group) {
    const at::Tensor mean_square_I =
        (group.second_moment_II.diagonal() / static_cast<double>(group.tokens)).to(at::kFloat);
    for (Parameter* p : group.matrices) {
      const Grid* grid = grid_of(*p);
      if (grid == nullptr) continue;
      if (options_.method == "awq") {
        round(*p, mean_square_I);
      } else {
        keep(*p, gptq(p->name, p->master, group.second_moment_II, *grid,
                      {.damping = options_.damping, .act_order = options_.act_order}));
      }
    }
  }

  void round(Parameter& p, const at::Tensor& importance_I) {
    const Grid* grid = grid_of(p);
    if (grid == nullptr) return;
    if (options_.recover) return keep_codes(p, *grid);
    // An input that was never seen still has weights that a later text may need.
    const at::Tensor weights_I =
        importance_I.defined() ? importance_I.clamp_min(1e-8 * importance_I.max().item<double>() + 1e-30)
                               : importance_I;
    const at::Tensor w_OI = p.master.contiguous();
    Quantized made;
    made.scales = grid->fit(w_OI, weights_I);
    made.codes = grid->round(w_OI, made.scales);
    keep(p, std::move(made));
  }

  // Its own codes where it lies on the grid.
  void keep_codes(Parameter& p, const Grid& grid) {
    Recovered made = recover(p.master.contiguous(), grid);
    const double share = made.share();
    if (!made.whole())
      log_.warn("{}: does not lie on {} ({:.1f} % of its scales' groups do): the rest is rounded to nearest",
                p.name, grid.name, 100 * share);
    keep(p, std::move(made.quantized));
    rows_.at(p.name).on_grid = share;
  }

  void keep(Parameter& p, Quantized made) {
    const at::Tensor values = dequantize_blocks(made);
    const double size = p.master.norm().item<double>();
    const double error = size > 0 ? (values - p.master).norm().item<double>() / size : 0;
    p.master.copy_(values);
    rows_.emplace(p.name, CodesMap::Row{grids_.grid_of(p), std::move(made), error});
  }

  // An importance is for a search to weigh; only matrices have one.
  bool searches_for(const Parameter& p) const {
    return options_.clip_search || (options_.method == "imatrix" && p.role == Role::kMatrix);
  }

  const Grid* grid_of(const Parameter& p) const {
    const Grid* grid = grids_.grid_of(p);
    if (grid == nullptr || !searches_for(p)) return grid;
    const auto clipped = clipped_.find(grid->name);
    return clipped == clipped_.end() ? grid : &clipped->second;
  }

  models::Model& model_;
  const QuantizeMap& grids_;
  const PostTrainingOptions& options_;
  const CalibrationInput& input_;
  Log& log_;
  std::map<std::string, Grid> clipped_;
  std::map<std::string, CodesMap::Row> rows_;
};

}  // namespace

std::string method_misfit(const PostTrainingOptions& options, const Grid& grid, bool matrix) {
  if (matrix && options.method == "imatrix" && !grid.searches && !grid.rows_alone)
    return fmt::format(
        "method imatrix weighs a search for scales of rows, and {} has a scale of the whole tensor",
        grid.name);
  if (options.clip_search && !grid.rows_alone)
    return fmt::format(
        "a clip search (clip_search, --clip-search) fits rows, and {} has a scale of the whole tensor",
        grid.name);
  if (!options.recover) return "";
  if (options.method != "rtn" || options.clip_search)
    return "what is recovered (recover, --recover) keeps its codes, and the rest is rounded to nearest: take "
           "method rtn "
           "without a clip search";
  return recovery_misfit(grid);
}

namespace {

Rule<std::string> a_scheme_or_none() {
  Rule<std::string> rule = one_of(schemes().names());
  rule.holds = [named = rule.holds](const std::string& name) { return name.empty() || named(name); };
  return rule;
}

}  // namespace

std::string method_misfit(const PostTrainingOptions& options, models::Model& model) {
  if (!options.calibrated() || model.layer_stack() != nullptr) return "";
  return fmt::format("method {} goes layer by layer, and a {} model is no stack of layers; rtn needs none",
                     options.method, model.spec().family);
}

std::vector<std::string> method_names() { return {"rtn", "gptq", "awq", "imatrix"}; }

void PostTrainingOptions::describe(Section& s) {
  s.field(
      "scheme", scheme,
      "method and grids of weights, embedding and head by one name, gptq-q4_0, instead of the keys for them",
      a_scheme_or_none());
  s.field("method", method,
          "way to find the codes. rtn: round to nearest; gptq, awq: from what the matrices read of a text; "
          "imatrix: scales that err least, errors weighed by it",
          one_of(method_names()));
  s.field("calibration", calibration,
          "token shards to calibrate on, or an importance matrix (.gguf); data.train when left out");
  s.field("tokens", tokens, "tokens of the calibration text that are read, in windows of data.sequence",
          at_least<int64_t>(1));
  s.field("damping", damping, "gptq: share of its mean that is added to the Hessian's diagonal", above(0.0));
  s.field("act_order", act_order, "gptq: take columns by falling activation, scales fixed beforehand");
  s.field("clip_search", clip_search,
          "search for scales below the largest weight's that err less; K-quants always search");
  s.field("recover", recover,
          "keep the codes of tensors that lie on their grid already, as those of a checkpoint that was "
          "trained on it "
          "and written in bf16, f16 or f32; the rest is rounded to nearest");
  s.field("baselines", baselines, "judge rtn and gptq on the same grids too");
  s.field("limit", limit, "tokens of data.validation that models are judged on; 0: all",
          at_least<int64_t>(0));
  s.field("importance_out", importance_out,
          "file for the importance matrix that imatrix schemes measure, as llama-quantize reads it");
}

const Grid* CodesMap::grid_of(const Parameter& p) const {
  const auto found = rows_.find(p.name);
  return found == rows_.end() ? nullptr : found->second.grid;
}

Quantized CodesMap::quantize(const Parameter& p) const { return rows_.at(p.name).quantized; }

double CodesMap::relative_error(const Parameter& p) const {
  const auto found = rows_.find(p.name);
  return found == rows_.end() ? 0 : found->second.relative_error;
}

std::optional<double> CodesMap::on_grid(const std::string& parameter) const {
  const auto found = rows_.find(parameter);
  return found == rows_.end() ? std::nullopt : found->second.on_grid;
}

std::unique_ptr<CodesMap> post_train(models::Model& model, const QuantizeMap& grids,
                                     const PostTrainingOptions& options, const CalibrationInput& input,
                                     Log& log) {
  const at::NoGradGuard no_grad;
  check<ConfigError>(!model.parameters().has_adapters(),
                     "[quantize] a weight merged with its adapter lies on no grid: merge the adapters first");
  const std::string misfit = method_misfit(options, model);
  check<ConfigError>(misfit.empty(), "[quantize] {}", misfit);
  check_method(model.parameters(), grids, options);
  check_finite(model.parameters());
  check<ConfigError>(!options.calibrated() || !input.blocks.empty() || input.importance,
                     "[quantize] method {} reads a calibration text, got none", options.method);
  models::IdentityMap identity;
  models::bind_working(model.parameters(), identity, at::kFloat);
  return std::make_unique<CodesMap>(PostTraining(model, grids, options, input, log).run());
}

Grid with_clip_search(const Grid& grid) {
  Grid searched = grid;
  searched.fit = [grid](const at::Tensor& x, const at::Tensor& importance) -> Scales {
    constexpr int kSteps = 20;
    const int64_t span = grid.span == 0 ? x.size(-1) : grid.span;
    const at::Tensor weight = importance.defined() ? importance : at::ones({x.size(-1)});
    Scales best;
    at::Tensor least;  // [.., groups]
    for (int step = 0; step <= kSteps; ++step) {
      const Scales scales = grid.fit(x * (1.0 - 0.5 * step / kSteps), importance);
      const int64_t width = x.size(-1) / scales.groups();
      RETORT_ASSERT(span % width == 0);
      const at::Tensor miss = (dequantize_blocks({grid.round(x, scales), scales}) - x).square() * weight;
      const at::Tensor error = miss.unflatten(-1, {scales.groups(), width}).sum(-1);
      if (!least.defined()) {
        best = scales;
        least = error;
        continue;
      }
      const at::Tensor better = error < least;
      for (auto part : {&Scales::scale, &Scales::offset, &Scales::divisor})
        if ((best.*part).defined()) best.*part = at::where(better, scales.*part, best.*part);
      if (best.header.defined())  // bytes of each group
        best.header = at::where(better.repeat_interleave(best.header.size(-1) / best.groups(), -1),
                                scales.header, best.header);
      least = at::minimum(least, error);
    }
    return best;
  };
  return searched;
}

}  // namespace retort::quantize
