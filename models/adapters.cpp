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
#include "models/stored_adapters.h"

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

// A copy of what is stored: products may follow where values lie.
at::Tensor copied(const Parameter& p, const ParameterValues& values) {
  const at::Tensor found = f32_of(values, p);
  return values && !p.codes ? found.clone() : found;
}

at::Tensor initial_a(const Parameter& a, Role role, uint64_t seed) {
  at::Tensor out = at::empty(a.shape, at::kFloat);
  const Random random(seed, "init/" + a.name);
  if (role == Role::kEmbedding)
    random.fill_normal(out, 1.0);
  else
    fill_uniform(out, 1.0 / std::sqrt(static_cast<double>(a.shape[1])), random);
  return out;
}

// What a tensor of a new adapter of this use begins with; `values` are the weights'.
at::Tensor initial_values_of(const Parameter& p, const Parameters& parameters, const std::string& use,
                             Role role, uint64_t seed, const ParameterValues& values) {
  if (p.role == Role::kLoraA) return initial_a(p, role, seed);
  if (p.role == Role::kLoraB) return at::zeros(p.shape, at::kFloat);
  const LowRank& adapter = parameters.adapter(use);
  const Parameter& weight = parameters.at(use);
  return joined_lengths(copied(weight, values), {initial_a(*adapter.a, role, seed),
                                                 at::zeros(adapter.b->shape, at::kFloat),
                                                 {},
                                                 1.0,
                                                 has_column_lengths(weight, use)});
}

// work(tensor, use, role) of every tensor of the modules' adapters.
template <typename Work>
void for_each_tensor(const Parameters& parameters, const std::vector<AdaptedModule>& modules,
                     const Work& work) {
  for (const AdaptedModule& module : modules)
    for (const std::string& use : module.uses) {
      const LowRank& adapter = parameters.adapter(use);
      for (const Parameter* p : {adapter.a, adapter.b, adapter.magnitude})
        if (p != nullptr) work(*p, use, module.role);
    }
}

// The base with adapters that have no values yet; what is not trained is borrowed.
std::vector<AdaptedModule> declare_adapters(std::unique_ptr<Model>& base, const AdapterOptions& options) {
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
  std::vector<AdaptedModule> modules = adapted_modules(*base, options);
  Parameters& parameters = base->parameters();
  std::set<std::string> trained;
  for (const WholeParameter& one : whole) trained.insert(parameters.at(one.use).name);
  for (Parameter& p : parameters.unique())
    if (!trained.contains(p.name)) p.borrow();
  for (const AdaptedModule& module : modules) {
    add_low_rank(parameters, module.uses, module.shape);
    if (module.tied) tie(parameters);
  }
  return modules;
}

// Of what merge_adapters() makes.
DecoderSpec merged_spec(const Model& model) {
  const Parameters& parameters = model.parameters();
  DecoderSpec spec = without_adapters(model.spec());
  const LowRank &embedding = parameters.adapter("embed.weight"), &head = parameters.adapter("lm_head.weight");
  spec.tie_embeddings = spec.tie_embeddings && embedding.a == head.a && embedding.b == head.b;
  return spec;
}

at::Tensor merged_values(const Parameters& parameters, const std::string& use, WeightMap& map,
                         const ParameterValues& values) {
  const at::NoGradGuard no_grad;
  const auto value = [&](const Parameter* p) { return p ? map.apply(*p, copied(*p, values)) : at::Tensor(); };
  const Parameter& weight = parameters.at(use);
  const LowRank& own = parameters.adapter(use);
  if (!own) return value(&weight);
  return joined(value(&weight), {value(own.a), value(own.b), value(own.magnitude), own.scale,
                                 has_column_lengths(weight, use)});
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
  const std::vector<AdaptedModule> modules = declare_adapters(base, options);
  Parameters& parameters = base->parameters();
  keep_as_codes(parameters, options.base);
  for_each_tensor(parameters, modules, [&](const Parameter& p, const std::string& use, Role role) {
    if (!p.master.is_meta())
      parameters.at(p.name).master.copy_(initial_values_of(p, parameters, use, role, seed, {}));
  });
  return base;
}

StoredModel adapt(StoredModel base, const AdapterOptions& options, uint64_t seed) {
  if (!base.values) return {adapt(std::move(base.model), options, seed), {}};
  const std::shared_ptr<const Model> plain = shape_of(*base.model, at::kMeta);  // as its values know it
  StoredModel out{std::move(base.model), {}};
  const std::vector<AdaptedModule> modules = declare_adapters(out.model, options);
  const Parameters& parameters = out.model->parameters();
  ParameterValues of_base = [plain, values = std::move(base.values)](const Parameter& p) {
    return values(plain->parameters().at(p.name));
  };
  keep_as_codes(out.model->parameters(), options.base, of_base);
  std::map<std::string, std::pair<std::string, Role>> fresh;
  for_each_tensor(parameters, modules, [&](const Parameter& p, const std::string& use, Role role) {
    fresh.try_emplace(p.name, use, role);
  });
  out.values = [&parameters, seed, fresh = std::move(fresh),
                of_base = std::move(of_base)](const Parameter& p) {
    const auto found = fresh.find(p.name);
    if (found == fresh.end()) return of_base(p);
    return initial_values_of(p, parameters, found->second.first, found->second.second, seed, of_base);
  };
  return out;
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
  std::unique_ptr<Model> out = make_model(merged_spec(model));
  for (Parameter& p : out->parameters().unique())
    p.master.copy_(merged_values(model.parameters(), p.name, map, {}));
  IdentityMap identity;
  bind_working(out->parameters(), identity, at::kFloat);
  return out;
}

StoredModel merge_adapters(StoredModel model, std::shared_ptr<WeightMap> map) {
  auto merged = make_model(merged_spec(*model.model), at::kMeta);
  const std::shared_ptr<const Model> parts = std::move(model.model);
  return {std::move(merged), [parts, map, values = std::move(model.values)](const Parameter& p) {
            return merged_values(parts->parameters(), p.name, *map, values);
          }};
}

std::string weights_digest(const Parameters& parameters) { return weights_digest(parameters, {}); }

std::string weights_digest(const Parameters& parameters, const ParameterValues& values) {
  std::map<std::string, std::string> by_use;
  for (const Parameter& p : parameters.unique()) {
    const std::string digest = hex(xxh3(host_bytes(f32_of(values, p).cpu())));
    for (const std::string& use : p.uses) by_use[use] = digest;
  }
  std::string all;
  for (const auto& [use, digest] : by_use) all += use + digest;
  return hex(xxh3(all));
}

}  // namespace retort::models
