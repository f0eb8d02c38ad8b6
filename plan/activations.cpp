#include "plan/activations.h"

#include <algorithm>
#include <map>
#include <set>

#include "models/bytes/patches.h"

namespace retort::plan {
namespace {

using models::Model;
using models::Parameter;
using models::Parameters;

constexpr double kF32 = 4.0;

// One executed layer by its prefix, "layers.3.": widths come from the shapes of its tensors.
class Layer {
 public:
  Layer(const Model& model, std::string prefix, const ActivationOptions& options)
      : parameters_(model.parameters()),
        spec_(model.spec()),
        prefix_(std::move(prefix)),
        options_(options),
        e_(options.bf16 ? 2.0 : kF32) {}

  using Bytes = std::map<std::string, double>;

  Bytes attention() const {
    const double D = in("attn.q"), Q = out("attn.q"), G = out("attn.k");
    const bool sub = has("attn.sub_norm");
    Bytes bytes{{"norms", norm("attn_post_norm") + (sub ? kF32 : 0)}};
    if (has("attn.q_norm"))
      bytes["norms"] += e_ * (Q + G) + kF32 * (Q + G) / static_cast<double>(spec_.head_dim);
    // q, k, v and y are kept by attention itself: also where the weights are frozen.
    bytes["attention"] = input_of({"attn.q", "attn.k", "attn.v"}) + e_ * (2 * Q + 2 * G) +
                         kF32 * Q / static_cast<double>(spec_.head_dim) + (options_.documents ? 4.0 : 0.0) +
                         (sub || options_.rounded_inputs ? input_of({"attn.o"}) : 0.0);
    for (const char* name : {"attn.q", "attn.k", "attn.v", "attn.o"})
      bytes["adapters"] += adapter_bytes(name);
    bytes["norms"] += first_norm(D);
    return bytes;
  }

  Bytes network() const {
    const double F = out("ffn.up");
    const bool gated = has("ffn.gate");
    Bytes bytes{{"norms", first_norm(in("attn.q")) + norm("attn_post_norm")}};
    if (has("attn.sub_norm")) bytes["norms"] += kF32 + e_ * F;  // attention keeps its own result
    bytes["feed-forward"] = input_of(gated ? std::vector<std::string>{"ffn.gate", "ffn.up"}
                                           : std::vector<std::string>{"ffn.up"}) +
                            e_ * F * (gated ? 2 : 1) + input_of({"ffn.down"});
    for (const char* name : {"ffn.gate", "ffn.up", "ffn.down"}) bytes["adapters"] += adapter_bytes(name);
    return bytes;
  }

 private:
  std::string use(const std::string& name) const { return prefix_ + name + ".weight"; }
  bool has(const std::string& name) const { return parameters_.contains(use(name)); }
  double first_norm(double D) const {
    return kF32 * D + (spec_.norm == models::NormKind::kLayer ? 2 * kF32 : kF32);
  }
  // Of a half's result, where layers have one; both have.
  double norm(const std::string& name) const { return has(name) ? kF32 * in("attn.q") + kF32 : 0; }
  double out(const std::string& name) const {
    return static_cast<double>(parameters_.at(use(name)).shape[0]);
  }
  double in(const std::string& name) const { return static_cast<double>(parameters_.at(use(name)).shape[1]); }
  // An f32 input that an adapter reads is the tensor that the weight reads.
  bool keeps_input(const std::string& name) const {
    return !parameters_.at(use(name)).frozen || (parameters_.adapter(use(name)) && !options_.bf16);
  }
  // Of products with one input between them.
  double input_of(const std::vector<std::string>& names) const {
    const auto kept =
        std::count_if(names.begin(), names.end(), [&](const auto& name) { return keeps_input(name); });
    const auto copies = options_.rounded_inputs ? static_cast<double>(kept) : (kept > 0 ? 1.0 : 0.0);
    return copies * e_ * in(names.front());
  }
  double adapter_bytes(const std::string& name) const {
    if (!has(name)) return 0;
    const models::LowRank& adapter = parameters_.adapter(use(name));
    if (!adapter) return 0;
    double bytes = kF32 * static_cast<double>(adapter.a->shape[0]);
    if (options_.bf16) bytes += kF32 * in(name);  // its own f32 copy of the input
    if (adapter.magnitude != nullptr) bytes += kF32 * out(name);
    return bytes;
  }

  const Parameters& parameters_;
  const models::DecoderSpec& spec_;
  std::string prefix_;
  ActivationOptions options_;
  double e_;
};

// Prefixes of the executed layers, of all stacks of a model.
std::vector<std::string> layers_of(const Parameters& parameters) {
  constexpr std::string_view kMark = "attn_norm.weight";
  std::vector<std::string> out;
  for (const Parameter& p : parameters.unique())
    for (const std::string& use : p.uses)
      if (use.ends_with(kMark)) out.push_back(use.substr(0, use.size() - kMark.size()));
  return out;
}

// How often a layer runs for a token of the text.
double runs(const Model& model, const std::string& prefix) {
  if (!model.spec().patch) return 1.0;
  if (prefix.starts_with("core.")) return 1.0 / models::kBytesPerPatch;
  const bool slots = prefix.starts_with("encoder.") || prefix.starts_with("head.blocks.");
  return slots ? static_cast<double>(model.spec().patch->longest) / models::kBytesPerPatch : 1.0;
}

double widest(const Model& model, double (*of)(double D, double F, bool gated)) {
  const Parameters& parameters = model.parameters();
  double most = 0;
  for (const std::string& prefix : layers_of(parameters)) {
    const Parameter& up = parameters.at(prefix + "ffn.up.weight");
    most = std::max(
        most, runs(model, prefix) * of(static_cast<double>(up.shape[1]), static_cast<double>(up.shape[0]),
                                       parameters.contains(prefix + "ffn.gate.weight")));
  }
  return most;
}

}  // namespace

double bytes_a_token(const std::vector<Kept>& kept) {
  double sum = 0;
  for (const Kept& one : kept) sum += one.width * one.bytes;
  return sum;
}

std::vector<Kept> kept_activations(const Model& model, const ActivationOptions& options) {
  std::map<std::string, double> sums;
  for (const std::string& prefix : layers_of(model.parameters())) {
    const Layer layer(model, prefix, options);
    for (const auto& half : {layer.attention(), layer.network()})
      for (const auto& [what, bytes] : half) sums[what] += bytes * runs(model, prefix);
  }
  sums["norms"] += kept_by_final_norm(model);
  std::vector<Kept> out;
  for (const auto& [what, bytes] : sums)
    if (bytes > 0) out.push_back({what, bytes, 1.0});
  return out;
}

std::vector<LayerKept> kept_by_layer(const Model& model, const ActivationOptions& options) {
  std::vector<LayerKept> out;
  for (const std::string& prefix : layers_of(model.parameters())) {
    LayerKept& one = out.emplace_back(LayerKept{.prefix = prefix});
    const Layer layer(model, prefix, options);
    for (const auto& [what, bytes] : layer.attention()) one.attention += bytes * runs(model, prefix);
    for (const auto& [what, bytes] : layer.network()) one.network += bytes * runs(model, prefix);
  }
  return out;
}

double kept_by_final_norm(const Model& model) {
  if (!model.parameters().contains("final_norm.weight")) return 0;
  return kF32 * static_cast<double>(model.parameters().at("final_norm.weight").numel()) + kF32;
}

double backward_bytes_a_token(const Model& model, bool bf16) {
  return bf16 ? widest(model,
                       [](double D, double F, bool gated) { return 4 * D + 2 * D + 2 * F * (gated ? 2 : 1); })
              : widest(model, [](double D, double F, bool gated) { return 4 * D + 4 * F * (gated ? 2 : 1); });
}

double forward_bytes_a_token(const Model& model, bool bf16) {
  return bf16
             ? widest(model,
                      [](double D, double F, bool gated) { return 8 * D + 2 * D + 2 * F * (gated ? 3 : 2); })
             : widest(model, [](double D, double F, bool gated) { return 12 * D + 4 * F * (gated ? 3 : 2); });
}

}  // namespace retort::plan
