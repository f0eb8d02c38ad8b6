#include "recipes/stage_check.h"

#include <algorithm>
#include <set>

#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "data/tokenizers/tokenizer.h"
#include "models/family.h"
#include "quantize/quantize_map.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/presets.h"

namespace retort::recipes {
namespace {

std::optional<models::DecoderSpec> spec_behind(const Recipe& recipe, const std::string& address,
                                               size_t hops) {
  if (const auto preset = preset_of(address)) {
    const auto known = preset_names();
    if (std::find(known.begin(), known.end(), *preset) == known.end()) return std::nullopt;
    return preset_spec(*preset);
  }
  const Stage* stage = recipe.behind(address);
  const ModelOptions* model = stage != nullptr && hops > 0 ? stage->find<ModelOptions>() : nullptr;
  if (model == nullptr || kind_of(*stage).makes != Thing::kModel) return std::nullopt;
  return model->from.empty() ? std::optional(model->spec()) : spec_behind(recipe, model->from, hops - 1);
}

}  // namespace

std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const std::string& address) {
  return spec_behind(recipe, address, recipe.stages.size());  // as many hops as there are stages: no cycle
}

std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const Stage& stage) {
  const auto& model = stage.get<ModelOptions>();
  return model.from.empty() ? std::optional(model.spec()) : spec_of(recipe, model.from);
}

std::optional<int64_t> tokenizer_size(const Recipe& recipe, const std::string& address) {
  if (stage_of(address)) {
    const Stage* stage = recipe.behind(address);
    const auto* training = stage != nullptr ? stage->find<data::BpeTrainingOptions>() : nullptr;
    return training != nullptr ? std::optional(training->vocabulary) : std::nullopt;
  }
  try {
    return data::make_tokenizer(address)->vocabulary();
  } catch (const Error&) {
    return std::nullopt;  // missing_files() says why
  }
}

void StageCheck::add_key_error(const ConfigError& error, const char* also) {
  const std::string text = error.what();
  const size_t space = text.find(' ');
  add(std::vector<std::string>{text.substr(0, space), also}, text.substr(space + 1));
}

void StageCheck::demand_model() {
  if (stage.get<ModelOptions>().from.empty())
    add("model.from", fmt::format("a stage of kind {} needs a MODEL to start from, got none", stage.kind()));
}

void StageCheck::demand_training() {
  const auto& data = stage.get<DataOptions>();
  if (data.mixture.empty() && data.train.empty()) add("data.train", "must name token shards, got none");
  if (data.mixture.empty()) return;
  if (!data.train.empty())
    add({"data.mixture", "data.train"},
        fmt::format("excludes data.train, got \"{}\"; make it a source of the mixture", data.train));
  std::set<std::string> names;
  for (size_t i = 0; i < data.mixture.size(); ++i) {
    const std::string& name = data.mixture[i].train;
    if (name.empty()) add("data.mixture", fmt::format("source {} must name token shards, got none", i + 1));
    if (!name.empty() && !names.insert(name).second)
      add("data.mixture", fmt::format("\"{}\" is named twice; add the weights up", name));
  }
}

std::optional<models::DecoderSpec> StageCheck::model_spec() {
  const auto spec = spec_of(recipe, stage);
  const auto* data = stage.find<DataOptions>();
  if (spec && data != nullptr && data->sequence > spec->context)
    add({"data.sequence", "model.context"},
        fmt::format("must be at most the model's context {}, got {}", spec->context, data->sequence));
  return spec;
}

void StageCheck::check_vocabulary(const models::DecoderSpec& spec, const std::vector<std::string>& keys) {
  for (const SourceOptions& source : stage.get<DataOptions>().sources()) {
    const Stage* shards = recipe.behind(source.train);
    const auto* prepare = shards != nullptr ? shards->find<data::PrepareOptions>() : nullptr;
    const auto needed = prepare != nullptr ? tokenizer_size(recipe, prepare->tokenizer) : std::nullopt;
    if (needed && spec.vocabulary < *needed)
      add(keys, fmt::format("must be at least {}, the vocabulary of tokenizer \"{}\", got {}", *needed,
                            prepare->tokenizer, spec.vocabulary));
  }
}

void StageCheck::check_grids(const models::DecoderSpec& spec, const quantize::QuantizeOptions& grids) {
  if (spec.lora_rank > 0)
    add({"quantize", "model.share.lora_rank"},
        "needs model.share.lora_rank 0: a weight merged with its adapter lies on no grid");
  try {
    const auto shape = models::make_model(spec, at::kMeta);
    const quantize::QuantizeMap map(grids, shape->parameters());
  } catch (const ConfigError& error) {
    std::string text = error.what();
    std::erase(text, '\n');  // one problem, one line
    add({"quantize", "model.width", "model.ffn_width", "model.head_dim", "model.heads"}, std::move(text));
  }
}

}  // namespace retort::recipes
