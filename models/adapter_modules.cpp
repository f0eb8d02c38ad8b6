// Which weights an adapter joins: the names of models/adapters.h, and the rules of peft for choosing among
// them.
#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>

#include "core/error.h"
#include "core/nearest.h"
#include "models/adapters.h"
#include "models/family.h"
#include "models/frozen_codes.h"

namespace retort::models {
namespace {

constexpr std::string_view kAllLinear = "all-linear", kWeight = ".weight";

std::string without(std::string name, std::string_view end) {
  if (name.ends_with(end)) name.resize(name.size() - end.size());
  return name;
}

// Every tensor of the model under the name that a folder gives it, or our own.
std::vector<ForeignTensor> named_tensors(const Model& model) {
  const Family& family = families().at(model.spec().family);
  if (family.hf_tensors) return family.hf_tensors(model.spec());
  std::vector<ForeignTensor> out;
  for (const Parameter& p : model.parameters().unique())
    for (const std::string& use : p.uses) out.push_back({use, use});
  return out;
}

bool takes_adapter(Role role) {
  return role == Role::kMatrix || role == Role::kEmbedding || role == Role::kHead;
}

std::vector<AdaptedModule> all_modules(const Model& model) {
  std::vector<AdaptedModule> out;
  for (const ForeignTensor& t : named_tensors(model)) {
    const Role role = t.parameter == "lm_head.weight" ? Role::kHead : model.parameters().at(t.parameter).role;
    if (!takes_adapter(role) || !t.name.ends_with(kWeight)) continue;
    const std::string name = without(t.name, kWeight);
    if (out.empty() || out.back().name != name) out.push_back({.name = name, .uses = {}, .role = role});
    out.back().uses.push_back(t.parameter);
  }
  return out;
}

// A whole name, or its end after a dot.
bool means(const std::string& entry, const std::string& name) {
  return name == entry || name.ends_with("." + entry);
}

bool any_means(const std::vector<std::string>& entries, const std::string& name) {
  return std::any_of(entries.begin(), entries.end(), [&](const auto& entry) { return means(entry, name); });
}

// The first number among a name's parts, or -1.
int64_t layer_of(const std::string& name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (!part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos)
      return std::stoll(part);
    begin = end + 1;
  }
  return -1;
}

// Patterns come in files of others. libstdc++'s polynomial matcher keeps a hostile one from running for ever;
// its compiler recurses, which the limit of length bounds.
std::regex compile(const std::string& key, const std::string& pattern) {
  check<ConfigError>(pattern.size() <= 1000, "{} must have at most 1000 characters, got {}", key,
                     pattern.size());
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error& error) {
    fail<ConfigError>("{} must be a regular expression, got \"{}\": {}", key, pattern, error.what());
  }
}

std::regex override_pattern(const ModuleRank& one) {
  return compile("adapters.overrides.modules", "(.*\\.)?(" + one.modules + ")");
}

// Rank and alpha of a module: those of the first override that names them.
class Shapes {
 public:
  explicit Shapes(const AdapterOptions& options) : options_(options) {
    for (const ModuleRank& one : options.overrides) patterns_.push_back(override_pattern(one));
  }

  LowRankShape of(const std::string& name) const {
    int64_t rank = 0;
    double alpha = 0.0;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (!std::regex_match(name, patterns_[i])) continue;
      if (rank == 0) rank = options_.overrides[i].rank;
      if (alpha == 0.0) alpha = options_.overrides[i].alpha;
    }
    if (rank == 0) rank = options_.rank;
    if (alpha == 0.0) alpha = options_.alpha;
    const auto r = static_cast<double>(rank);
    return {rank, alpha / (options_.rslora ? std::sqrt(r) : r), options_.dora};
  }

 private:
  const AdapterOptions& options_;
  std::vector<std::regex> patterns_;
};

// Every entry names something.
void check_entries(const char* key, const std::vector<std::string>& entries,
                   const std::vector<std::string>& names) {
  for (const std::string& entry : entries) {
    if (entry == kAllLinear) continue;
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return means(entry, name); }))
      continue;
    std::vector<std::string> ends;
    for (const std::string& name : names) ends.push_back(name.substr(name.rfind('.') + 1));
    fail<ConfigError>("adapters.{} \"{}\" names no part of the model{}", key, entry,
                      did_you_mean(entry, ends));
  }
}

std::vector<std::string> names_of(const std::vector<AdaptedModule>& modules) {
  std::vector<std::string> out;
  for (const AdaptedModule& module : modules) out.push_back(module.name);
  return out;
}

// One adapter on both sides of the tie is the embedding's.
void join_tie(std::vector<AdaptedModule>& chosen, const std::vector<AdaptedModule>& all) {
  const auto is_table = [](const AdaptedModule& module) { return module.role != Role::kMatrix; };
  const auto first = std::find_if(chosen.begin(), chosen.end(), is_table);
  if (first == chosen.end()) return;
  AdaptedModule embedding = *std::find_if(
      all.begin(), all.end(), [](const AdaptedModule& module) { return module.role == Role::kEmbedding; });
  embedding.shape = first->shape;
  embedding.tied = true;
  std::erase_if(chosen, is_table);
  chosen.insert(chosen.begin(), std::move(embedding));
}

}  // namespace

int64_t AdaptedModule::rows(const Parameters& parameters) const {
  int64_t sum = 0;
  for (const std::string& use : uses) sum += parameters.at(use).shape[0];
  return sum;
}

std::vector<AdaptedModule> adapted_modules(const Model& base, const AdapterOptions& options) {
  const std::vector<AdaptedModule> all = all_modules(base);
  const bool by_pattern = !options.pattern.empty();
  if (!by_pattern) check_entries("modules", options.modules, names_of(all));
  check_entries("exclude", options.exclude, names_of(all));
  const bool linear =
      std::find(options.modules.begin(), options.modules.end(), kAllLinear) != options.modules.end();
  const std::optional<std::regex> pattern =
      by_pattern ? std::optional(compile("adapters.pattern", options.pattern)) : std::nullopt;
  const Shapes shapes(options);
  std::vector<AdaptedModule> out;
  for (AdaptedModule module : all) {
    const bool named =
        pattern ? std::regex_match(module.name, *pattern)
                : (linear && module.role == Role::kMatrix) || any_means(options.modules, module.name);
    const bool in_layers = options.layers.empty() || std::find(options.layers.begin(), options.layers.end(),
                                                               layer_of(module.name)) != options.layers.end();
    if (!named || !in_layers || any_means(options.exclude, module.name) ||
        any_means(options.whole, module.name))
      continue;
    module.shape = shapes.of(module.name);
    out.push_back(std::move(module));
  }
  check<ConfigError>(!out.empty(),
                     "adapters.{} must choose a weight of the model that adapters.layers, exclude and whole "
                     "leave to adapters, and chooses none",
                     by_pattern ? "pattern" : "modules");
  if (options.tied && base.spec().tie_embeddings) join_tie(out, all);
  for (const AdaptedModule& module : out)
    check<ConfigError>(
        !options.dora || !module.tied,
        "adapters.dora has lengths for one side of a tie, and adapters.tied makes one adapter of both");
  return out;
}

void check_choices(const Model& base, const AdapterOptions& options) {
  AdapterOptions all = options;
  all.exclude.clear();
  const std::vector<std::string> names = names_of(adapted_modules(base, all));
  const auto meets = [&](const auto& rule) { return std::any_of(names.begin(), names.end(), rule); };
  std::vector<std::string> ends;
  for (const std::string& name : names) ends.push_back(name.substr(name.rfind('.') + 1));
  for (const std::string& entry : options.exclude)
    check<ConfigError>(meets([&](const std::string& name) { return means(entry, name); }),
                       "adapters.exclude \"{}\" names none of the weights that modules choose{}", entry,
                       did_you_mean(entry, ends));
  for (const ModuleRank& one : options.overrides) {
    const std::regex pattern = override_pattern(one);
    check<ConfigError>(meets([&](const std::string& name) { return std::regex_match(name, pattern); }),
                       "adapters.overrides \"{}\" matches none of the weights that modules choose{}",
                       one.modules, did_you_mean(one.modules, ends));
  }
}

std::vector<WholeParameter> whole_parameters(const Model& base, const AdapterOptions& options) {
  std::vector<WholeParameter> out;
  std::vector<std::string> names;
  for (const ForeignTensor& t : named_tensors(base)) {
    const std::string module = t.name.substr(0, t.name.rfind('.'));
    names.push_back(module);
    if (any_means(options.whole, module)) out.push_back({t.name, t.parameter, t.transposed});
  }
  check_entries("whole", options.whole, names);
  return out;
}

void ModuleRank::describe(Section& s) {
  s.field("modules", modules, "regular expression of the end of a module's name");
  s.field("rank", rank, "rank there; 0: as elsewhere", between<int64_t>(0, 65536));
  s.field("alpha", alpha, "alpha there; 0: as elsewhere", at_least(0.0));
}

void AdapterOptions::describe(Section& s) {
  s.field("modules", modules,
          "weights that get an adapter, by their names in a Hugging Face folder or what follows a dot there "
          "(q_proj); all-linear: every matrix of attention and feed-forward layers");
  s.field("pattern", pattern, "regular expression of whole names, instead of modules");
  s.field("exclude", exclude, "names of weights that get none");
  s.field("layers", layers, "numbers of the layers whose weights get one, from 0; empty: all");
  s.field("rank", rank, "rank of an adapter: the width between its A and B", between<int64_t>(1, 65536));
  s.field("alpha", alpha, "factor of B A, which is alpha / rank", above(0.0));
  s.field("rslora", rslora, "make that factor alpha / sqrt(rank)");
  s.field("dora", dora,
          "train the length of each row of a weight, of an embedding each column, beside its direction");
  s.field("tied", tied,
          "give a tied embedding and head one adapter together; otherwise each has its own or none");
  s.list("overrides", overrides, "other ranks and alphas for some weights; the first that matches counts");
  s.field("whole", whole, "parts that are trained whole beside the adapters (lm_head, norm)");
  s.field(
      "base", base,
      "form in memory of the base's frozen matrices: f32 (beside a copy in the run's precision, where that "
      "is another), bf16, or codes of 8 bits or 4 (QLoRA: nf4)",
      one_of(frozen_code_names()));
}

}  // namespace retort::models
