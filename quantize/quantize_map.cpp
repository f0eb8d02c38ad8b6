#include "quantize/quantize_map.h"

#include <algorithm>
#include <cmath>

#include "formats/finite_values.h"
#include "kernels/fitted_values.h"
#include "quantize/activations.h"
#include "quantize/device_fit.h"
#include "quantize/learned_scale.h"

namespace retort::quantize {
namespace {

using models::Parameter;
using models::Role;

constexpr const char* kNoGrid = "none";
constexpr const char* kRefuse = "refuse";
constexpr const char* kWider = "wider";

Rule<std::string> a_grid_or_none() {
  std::vector<std::string> names = grids().names();
  names.emplace_back(kNoGrid);
  return one_of(std::move(names));
}

// `*` stands for any run of characters.
bool matches(std::string_view pattern, std::string_view name) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  for (size_t skipped = star; skipped <= name.size(); ++skipped)
    if (matches(pattern.substr(star + 1), name.substr(skipped))) return true;
  return false;
}

bool quantizable(Role role) {
  return role == Role::kMatrix || role == Role::kEmbedding || role == Role::kHead;
}

bool applies_to(const GridException& exception, const Parameter& p) {
  if (!quantizable(p.role)) return false;
  return std::any_of(p.uses.begin(), p.uses.end(),
                     [&](const std::string& use) { return matches(exception.match, use); });
}

const std::string& grid_name(const QuantizeOptions& options, const Parameter& p) {
  static const std::string none = kNoGrid;
  if (!quantizable(p.role)) return none;
  for (const GridException& exception : options.except)
    if (applies_to(exception, p)) return exception.grid;
  if (p.role == Role::kMatrix) return options.weights.grid;
  return p.role == Role::kEmbedding ? options.embedding.grid : options.head.grid;
}

void check_options(const QuantizeOptions& options, const models::Parameters& parameters) {
  check<ConfigError>(options.until_step == 0 || options.until_step > options.from_step,
                     "[quantize] until_step must be above from_step {}, or 0, got {}", options.from_step,
                     options.until_step);
  activation_kinds().at(options.activations);
  for (const GridException& exception : options.except) {
    std::vector<std::string> names;
    bool matched = false;
    for (const Parameter& p : parameters.unique())
      if (quantizable(p.role)) {
        names.insert(names.end(), p.uses.begin(), p.uses.end());
        matched = matched || applies_to(exception, p);
      }
    check<ConfigError>(matched, "[quantize] except: no matrix, embedding or head matches \"{}\"{}",
                       exception.match, did_you_mean(exception.match, names));
  }
}

// The rows of `whole`, of p's shape or its scale's, that x has: all of them, or those that this rank owns.
at::Tensor rows_in(const Parameter& p, const at::Tensor& whole, const at::Tensor& x) {
  if (whole.size(0) == x.size(0)) return whole;
  const models::RowBlocks& rows = p.placement.owned;
  RETORT_ASSERT(x.size(0) == rows.end - rows.begin);
  return whole.slice(0, rows.begin, rows.end);
}

// Tensors that do not fit their grid. Those of a deep model are alike, so the first of each kind is named.
class Misfits {
 public:
  void add(const Grid& grid, const Parameter& p) {
    if (misfit(grid, p.name, p.shape.back()).empty()) return;
    const auto alike = std::ranges::find_if(kinds_, [&](const Kind& kind) {
      return kind.grid == &grid && kind.first->shape.back() == p.shape.back();
    });
    if (alike != kinds_.end())
      ++alike->others;
    else
      kinds_.push_back({&grid, &p});
  }
  std::string text() const {
    std::string out;
    for (const Kind& kind : kinds_) {
      const std::string& name = kind.first->name;
      out += "\n  " + misfit(*kind.grid,
                             kind.others > 0 ? fmt::format("{} and {} more", name, kind.others) : name,
                             kind.first->shape.back());
    }
    return out;
  }

 private:
  struct Kind {
    const Grid* grid;
    const Parameter* first;
    int64_t others = 0;
  };
  std::vector<Kind> kinds_;
};

}  // namespace

void GridChoice::describe(Section& s) {
  s.field("grid", grid, "grid of the values (docs/quantization.md); none: stay f32", a_grid_or_none());
}

void GridException::describe(Section& s) {
  s.field("match", match, "name of a tensor, or a pattern in which * stands for anything: layers.0.*");
  s.field("grid", grid, "grid of those tensors; none: they stay f32", a_grid_or_none());
}

void QuantizeOptions::describe(Section& s) {
  s.section("weights", weights, "matrices of attention and feed-forward layers");
  s.section("embedding", embedding, "token embedding, and a head tied to it");
  s.section("head", head, "an untied head");
  s.list("except", except, "tensors with another grid; the first that matches any name of a tensor counts");
  std::vector<std::string> names = grids().names();
  names.insert(names.begin(), {kRefuse, kNoGrid, kWider});
  s.field("fallback", fallback,
          "grid of the tensors whose rows their own does not divide; none: f32; wider: their own, of which "
          "the file holds the "
          "codes in blocks of Q4_0",
          one_of(std::move(names)));
  s.field("activations", activations, "grid of what the quantized matrices multiply, a scale a token",
          one_of(activation_kinds().names()));
  s.field("from_step", from_step, "first step that trains on the grid; before it weights are f32",
          at_least<int64_t>(0));
  s.field("until_step", until_step, "first step that trains in f32 again; 0: none", at_least<int64_t>(0));
}

bool same_grids(const QuantizeOptions& a, const QuantizeOptions& b) {
  return a.weights == b.weights && a.embedding == b.embedding && a.head == b.head && a.except == b.except &&
         a.fallback == b.fallback;
}

QuantizeMap::QuantizeMap(const QuantizeOptions& options, models::Parameters& parameters) : options_(options) {
  check_options(options, parameters);
  Misfits misfits;
  for (Parameter& p : parameters.unique()) {
    p.input_map = {};  // of a map that was here before
    const std::string& name = grid_name(options, p);
    if (name == kNoGrid) continue;
    const Grid* grid = &grids().at(name);
    if (p.shape.back() % grid->block != 0 && options.fallback != kRefuse) {
      if (options.fallback == kNoGrid) continue;
      if (options.fallback != kWider)
        grid = &grids().at(options.fallback);
      else if (const Grid* wider = in_q4_0_blocks(*grid))
        grid = wider;
    }
    misfits.add(*grid, p);
    entries_[p.name] = {.grid = grid, .weight = &p, .theta = nullptr, .theta_gradient = {}};
  }
  const std::string misfit_text = misfits.text();
  check<ConfigError>(
      misfit_text.empty(),
      "[quantize] these tensors do not fit their grids; name one that fits, or none, as the fallback "
      "(quantize.fallback, --fallback):{}",
      misfit_text);
  const at::NoGradGuard no_grad;
  for (auto& [name, entry] : entries_) {
    if (!entry.grid->learned) continue;
    const std::string scale = name + "_scale";
    if (!parameters.contains(scale))
      parameters.add(scale, {entry.weight->shape[0], 1}, Role::kScale).master.fill_(NAN);
    entry.theta = &parameters.at(scale);
    if (entry.weight->frozen) entry.theta->freeze();
    weight_of_[scale] = name;
  }
  enable(options.active(0));
}

void QuantizeMap::enable(bool on) {
  enabled_ = on;
  const InputMap& inputs = activation_kinds().at(options_.activations).map;
  for (auto& [name, entry] : entries_) {
    if (entry.weight->role == Role::kMatrix) entry.weight->input_map = on ? inputs : InputMap();
    if (!on) entry.theta_gradient.reset();
  }
}

bool QuantizeMap::begin_step(int64_t step) {
  const bool before = enabled_;
  if (const bool now = options_.active(step); now != before) enable(now);
  const bool fitted = enabled_ && fit_scales();
  return fitted || enabled_ != before;
}

bool QuantizeMap::fit_scales() {
  const at::NoGradGuard no_grad;
  bool fitted = false;
  for (auto& [name, entry] : entries_) {
    // A scale that has a gradient, if only of nothing yet, has a value: no step makes a device say so again.
    if (entry.theta == nullptr || entry.theta_gradient.defined()) continue;
    entry.theta_gradient = at::zeros_like(rows_in(*entry.weight, entry.theta->master, entry.weight->master));
    if (!entry.theta->master.isnan().any().item<bool>()) continue;
    fitted = true;
    const at::Tensor weight = entry.weight->master.cpu().contiguous();
    if (weight.size(0) > 0)
      rows_in(*entry.weight, entry.theta->master, weight).copy_(theta_of(entry.grid->fit(weight, {})));
  }
  return fitted;
}

Quantized QuantizeMap::quantize(const Entry& entry, const at::Tensor& x) const {
  if (entry.theta == nullptr) return entry.grid->quantize(x.contiguous());
  const Scales scales = learned_scales(rows_in(*entry.weight, entry.theta->master, x).cpu());
  return {entry.grid->round(x, scales), scales};
}

// dequantize_blocks(quantize(entry, x)), bit for bit, cast where `values` are bf16 on a device. They are on x's.
void QuantizeMap::fake_quantize(const Entry& entry, const at::Tensor& x, const at::Tensor& values) const {
  if (entry.theta != nullptr) {
    const at::Tensor theta = rows_in(*entry.weight, entry.theta->master, x).to(x.device());
    return kernels::round_values(x, learned_scales(theta), entry.grid->rounding, values);
  }
  if (x.is_cpu()) return entry.grid->fake_quantize(x.contiguous(), values);
  if (const auto fit = device_fit(*entry.grid))
    return kernels::round_fitted(x, *fit, entry.grid->rounding, values);
  const at::Tensor host = x.cpu(), made = at::empty(host.sizes(), host.options());
  entry.grid->fake_quantize(host.contiguous(), made);
  values.copy_(made);
}

models::RowBlocks QuantizeMap::blocks(const Parameter& p) const {
  if (const auto weight = weight_of_.find(p.name); weight != weight_of_.end())
    return blocks(*entries_.at(weight->second).weight);
  const Grid* grid = grid_of(p);
  if (grid != nullptr && !grid->rows_alone) return {0, p.shape.front(), p.shape.front()};
  return PackingMap::blocks(p);
}

at::Tensor QuantizeMap::apply(const Parameter& p, const at::Tensor& x) {
  const Entry* entry = entry_of(p);
  if (entry == nullptr || !enabled_) return x;
  const at::NoGradGuard no_grad;
  at::Tensor values = at::empty(x.sizes(), x.options());
  fake_quantize(*entry, x, values);
  return values;
}

void QuantizeMap::apply_into(const Parameter& p, const at::Tensor& x, const at::Tensor& working) {
  const Entry* entry = entry_of(p);
  const bool direct = working.sizes() == x.sizes() && working.device() == x.device() &&
                      (!x.is_cpu() || working.scalar_type() == at::kFloat);
  if (entry == nullptr || !enabled_ || !direct) return PackingMap::apply_into(p, x, working);
  const at::NoGradGuard no_grad;
  fake_quantize(*entry, x, working);
}

at::Tensor QuantizeMap::pull_back(const Parameter& p, const at::Tensor& gradient) {
  if (!enabled_) return gradient;
  const at::NoGradGuard no_grad;
  if (const auto owner = weight_of_.find(p.name); owner != weight_of_.end()) {
    const at::Tensor& gradient_of_scale = entries_.at(owner->second).theta_gradient;
    RETORT_ASSERT(gradient_of_scale.defined());
    return gradient_of_scale;
  }
  const auto found = entries_.find(p.name);
  if (found == entries_.end() || found->second.theta == nullptr) return gradient;
  LearnedGradient out = quantize::pull_back(*found->second.grid, rows_in(p, p.master, gradient),
                                            rows_in(p, found->second.theta->master, gradient), gradient,
                                            gradient.is_contiguous() ? gradient : at::Tensor(), p.numel());
  found->second.theta_gradient = std::move(out.theta);
  return out.weight;
}

bool QuantizeMap::identity_for(const Parameter& p) const { return entry_of(p) == nullptr; }

std::optional<kernels::FittedGrid> QuantizeMap::fitted_grid(const Parameter& p) const {
  const Entry* const entry = entry_of(p);
  if (entry == nullptr || !enabled_ || entry->theta != nullptr) return {};
  const auto fit = device_fit(*entry->grid);
  return fit ? std::optional<kernels::FittedGrid>({*fit, entry->grid->rounding}) : std::nullopt;
}

const QuantizeMap::Entry* QuantizeMap::entry_of(const Parameter& p) const {
  const auto found = entries_.find(p.name);
  return found == entries_.end() ? nullptr : &found->second;
}

const Grid* QuantizeMap::grid_of(const Parameter& p) const {
  const Entry* entry = entry_of(p);
  return entry == nullptr ? nullptr : entry->grid;
}

Quantized QuantizeMap::quantize(const Parameter& p) const {
  const Entry* entry = entry_of(p);
  RETORT_ASSERT(entry != nullptr);
  const at::NoGradGuard no_grad;
  const at::Tensor master = p.master.cpu();
  formats::check_finite("[quantize]", p.name, master);
  return quantize(*entry, master);
}

double QuantizeMap::relative_error(const Parameter& p) const {
  const double size = p.master.norm().item<double>();
  if (entry_of(p) == nullptr || !enabled_ || size == 0) return 0;
  return (dequantize_blocks(quantize(p)) - p.master.cpu()).norm().item<double>() / size;
}

}  // namespace retort::quantize
