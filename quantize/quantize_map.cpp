#include "quantize/quantize_map.h"

namespace retort::quantize {
namespace {

constexpr const char* kNoGrid = "none";
constexpr const char* kRefuse = "refuse";

const std::string& grid_name(const QuantizeOptions& options, models::Role role) {
  static const std::string none = kNoGrid;
  switch (role) {
    case models::Role::kMatrix:
      return options.weights.grid;
    case models::Role::kEmbedding:
      return options.embedding.grid;
    case models::Role::kHead:
      return options.head.grid;
    default:
      return none;
  }
}

}  // namespace

void GridChoice::describe(Section& s) {
  std::vector<std::string> names = grids().names();
  names.emplace_back(kNoGrid);
  s.field("grid", grid, "grid of the values, as stored in a GGUF; none: stay f32", one_of(std::move(names)));
}

void QuantizeOptions::describe(Section& s) {
  s.section("weights", weights, "matrices of attention and feed-forward layers");
  s.section("embedding", embedding, "token embedding, and a head tied to it");
  s.section("head", head, "an untied head");
  std::vector<std::string> names = grids().names();
  names.insert(names.begin(), {kRefuse, kNoGrid});
  s.field("fallback", fallback, "grid of the tensors whose rows their own does not divide; none: f32",
          one_of(std::move(names)));
  s.field("from_step", from_step, "first step that trains on the grid; before it weights are f32",
          at_least<int64_t>(0));
}

QuantizeMap::QuantizeMap(const QuantizeOptions& options, const models::Parameters& parameters)
    : from_step_(options.from_step), enabled_(options.from_step <= 0) {
  std::string misfits;
  for (const models::Parameter& p : parameters.unique()) {
    const std::string& name = grid_name(options, p.role);
    if (name == kNoGrid) continue;
    const Grid* grid = &grids().at(name);
    if (p.master.size(-1) % grid->block != 0 && options.fallback != kRefuse) {
      if (options.fallback == kNoGrid) continue;
      grid = &grids().at(options.fallback);
    }
    const std::string why = misfit(*grid, p.name, p.master.size(-1));
    if (!why.empty()) misfits += "\n  " + why;
    grid_by_name_[p.name] = grid;
  }
  check<ConfigError>(
      misfits.empty(),
      "[quantize] these tensors do not fit their grids; name one that fits, or none, as the fallback "
      "(quantize.fallback, --fallback):{}",
      misfits);
}

bool QuantizeMap::begin_step(int64_t step) {
  const bool before = enabled_;
  enabled_ = step >= from_step_;
  return enabled_ != before;
}

at::Tensor QuantizeMap::apply(const models::Parameter& p, const at::Tensor& x) {
  const Grid* grid = grid_of(p);
  if (grid == nullptr || !enabled_) return x;
  const at::NoGradGuard no_grad;
  return dequantize_blocks(grid->quantize(x.contiguous()));
}

at::Tensor QuantizeMap::pull_back(const models::Parameter&, const at::Tensor& gradient) { return gradient; }

bool QuantizeMap::identity_for(const models::Parameter& p) const { return grid_of(p) == nullptr; }

const Grid* QuantizeMap::grid_of(const models::Parameter& p) const {
  const auto found = grid_by_name_.find(p.name);
  return found == grid_by_name_.end() ? nullptr : found->second;
}

Quantized QuantizeMap::quantize(const models::Parameter& p) const {
  const at::NoGradGuard no_grad;
  return grid_of(p)->quantize(p.master.contiguous());
}

double QuantizeMap::relative_error(const models::Parameter& p) const {
  const double size = p.master.norm().item<double>();
  if (grid_of(p) == nullptr || !enabled_ || size == 0) return 0;
  return (dequantize_blocks(quantize(p)) - p.master).norm().item<double>() / size;
}

}  // namespace retort::quantize
