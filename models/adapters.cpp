#include "models/adapters.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <set>

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/random.h"
#include "models/family.h"
#include "models/frozen_codes.h"
#include "models/linear.h"
#include "models/shape_of.h"

namespace retort::models {
namespace {

// "layers.3.attn.q.lora_a.weight".
std::string beside(const std::string& use, const char* part) {
  return use.substr(0, use.rfind('.')) + "." + part + ".weight";
}

// The tied head takes the embedding's adapter.
void tie(Parameters& parameters) {
  const LowRank& embedding = parameters.adapter("embed.weight");
  parameters.alias(beside("lm_head.weight", "lora_a"), embedding.a->name);
  parameters.alias(beside("lm_head.weight", "lora_b"), embedding.b->name);
  parameters.join("lm_head.weight", embedding);
}

// The same model with a head of its own.
std::unique_ptr<Model> untied(const Model& model) {
  DecoderSpec spec = model.spec();
  spec.tie_embeddings = false;
  const bool meta = model.parameters().unique().front().master.is_meta();
  auto out = make_model(spec, meta ? at::kMeta : at::kCPU);
  if (meta) return out;
  for (Parameter& p : out->parameters().unique()) p.master.copy_(model.parameters().at(p.name).master);
  return out;
}

void fill_uniform(at::Tensor& out, double bound, const Random& random) {
  const std::span<float> values = host_values<float>(out);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((2.0 * random.uniform(i) - 1.0) * bound);
}

void initialise_adapter(Parameters& parameters, const AdaptedModule& module, uint64_t seed) {
  for (const std::string& use : module.uses) {
    const LowRank& adapter = parameters.adapter(use);
    Parameter& a = parameters.at(adapter.a->name);
    const Random random(seed, "init/" + a.name);
    if (module.role == Role::kEmbedding)
      random.fill_normal(a.master, 1.0);
    else
      fill_uniform(a.master, 1.0 / std::sqrt(static_cast<double>(a.shape[1])), random);
    parameters.at(adapter.b->name).master.zero_();
    if (adapter.magnitude != nullptr)
      parameters.at(adapter.magnitude->name)
          .master.copy_(joined_lengths(
              parameters.at(use).values(),
              {a.master, adapter.b->master, {}, 1.0, has_column_lengths(parameters.at(use), use)}));
  }
}

}  // namespace

void add_low_rank(Parameters& parameters, const std::vector<std::string>& uses, const LowRankShape& shape) {
  const std::string a_name = beside(uses.front(), "lora_a");
  for (const std::string& use : uses) {
    const int64_t out = parameters.at(use).shape.at(0), in = parameters.at(use).shape.at(1);
    if (use == uses.front())
      parameters.add(a_name, {shape.rank, in}, Role::kLoraA);
    else
      parameters.alias(beside(use, "lora_a"), a_name);
    LowRank adapter{.a = &parameters.at(a_name), .scale = shape.scale};
    adapter.b = &parameters.add(beside(use, "lora_b"), {out, shape.rank}, Role::kLoraB);
    if (shape.magnitudes)
      adapter.magnitude = &parameters.add(
          beside(use, "lora_m"), {has_column_lengths(parameters.at(use), use) ? in : out}, Role::kMagnitude);
    parameters.join(use, adapter);
  }
}

std::unique_ptr<Model> adapt(std::unique_ptr<Model> base, const AdapterOptions& options, uint64_t seed) {
  const at::NoGradGuard no_grad;
  check<ConfigError>(
      !base->parameters().has_adapters(),
      "adapters need a model without low-rank parts of its own: merge them first (retort export)");
  const std::vector<WholeParameter> whole = whole_parameters(*base, options);
  const auto trains = [&](const std::string& use) {
    return std::any_of(whole.begin(), whole.end(), [&](const auto& one) { return one.use == use; });
  };
  const bool embedding = trains("embed.weight"), head = trains("lm_head.weight");
  if (base->spec().tie_embeddings && (embedding != head || (embedding && !options.tied)))
    base = untied(*base);
  const std::vector<AdaptedModule> modules = adapted_modules(*base, options);
  Parameters& parameters = base->parameters();
  std::set<std::string> trained;
  for (const WholeParameter& one : whole) trained.insert(parameters.at(one.use).name);
  for (Parameter& p : parameters.unique())
    if (!trained.contains(p.name)) p.borrow();
  keep_as_codes(parameters, options.base);
  for (const AdaptedModule& module : modules) {
    add_low_rank(parameters, module.uses, module.shape);
    if (module.tied) tie(parameters);
    if (!parameters.at(module.uses.front()).master.is_meta()) initialise_adapter(parameters, module, seed);
  }
  return base;
}

std::unique_ptr<Model> same_shape(const Model& model) { return shape_of(model, at::kCPU); }

DecoderSpec without_adapters(DecoderSpec spec) {
  spec.share_ffn = spec.share_output = false;
  spec.keep_first = spec.keep_last = spec.lora_rank = 0;
  spec.repeat = 1;
  return spec;
}

std::unique_ptr<Model> merge_adapters(const Model& model, WeightMap& map) {
  const at::NoGradGuard no_grad;
  const Parameters& parameters = model.parameters();
  DecoderSpec spec = without_adapters(model.spec());
  const LowRank &embedding = parameters.adapter("embed.weight"), &head = parameters.adapter("lm_head.weight");
  spec.tie_embeddings = spec.tie_embeddings && embedding.a == head.a && embedding.b == head.b;
  const auto value = [&](const Parameter* p) { return p ? map.apply(*p, p->values()) : at::Tensor(); };
  std::unique_ptr<Model> out = make_model(spec);
  for (Parameter& p : out->parameters().unique()) {
    p.master.copy_(value(&parameters.at(p.name)));
    if (const LowRank& own = parameters.adapter(p.name))
      p.master.copy_(joined(p.master, {value(own.a), value(own.b), value(own.magnitude), own.scale,
                                       has_column_lengths(parameters.at(p.name), p.name)}));
  }
  IdentityMap identity;
  bind_working(out->parameters(), identity, at::kFloat);
  return out;
}

std::string weights_digest(const Parameters& parameters) {
  std::map<std::string, std::string> by_use;
  for (const Parameter& p : parameters.unique()) {
    const std::string values = hex(xxh3(host_bytes(p.master.cpu().contiguous())));
    for (const std::string& use : p.uses) by_use[use] = values;
  }
  std::string all;
  for (const auto& [use, values] : by_use) all += use + values;
  return hex(xxh3(all));
}

}  // namespace retort::models
