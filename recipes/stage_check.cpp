#include "recipes/stage_check.h"

#include <algorithm>
#include <limits>
#include <set>

#include "artifacts/export_formats.h"
#include "artifacts/identify.h"
#include "artifacts/model_shape.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "data/tokenizers/tokenizer.h"
#include "eval/complete.h"
#include "models/adapters.h"
#include "models/family.h"
#include "quantize/quantize_map.h"
#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/model_address.h"
#include "recipes/model_options.h"
#include "recipes/presets.h"
#include "recipes/stages/watch.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

std::optional<models::DecoderSpec> shape_on_disk(const std::string& address) {
  try {
    return model_shape(address, "");
  } catch (const Error&) {
    return std::nullopt;  // missing_files() says why
  }
}

// nullopt: not known yet; nullptr: there is none.
using MaybeTokenizer = std::optional<std::unique_ptr<data::Tokenizer>>;

const data::PrepareOptions* prepare_of(const Recipe& recipe, const std::string& shards) {
  const Stage* stage = recipe.maker_of(shards);
  return stage != nullptr ? stage->find<data::PrepareOptions>() : nullptr;
}

// Of the text that a stage trains on.
MaybeTokenizer tokenizer_of_text(const Recipe& recipe, const std::string& trained_on) {
  const std::string address = text_behind(recipe, trained_on);
  if (!stage_of(address))
    return data::TokenShards(place_of({"data.train", address, Thing::kShards, "train"}, "")).tokenizer();
  const auto* prepare = prepare_of(recipe, address);
  if (prepare == nullptr || stage_of(prepare->tokenizer)) return std::nullopt;  // one that a stage will make
  return data::prepared_tokenizer(*prepare);
}

// Where a model has its tokenizer from: the text that a stage trains it on, or a model that no stage makes; neither: none
// is known.
struct TokenizerSource {
  std::string text = {}, model = {};
};

TokenizerSource tokenizer_source(const Recipe& recipe, const std::string& address, size_t hops) {
  if (!stage_of(address)) return {.model = address};
  const Stage* stage = hops > 0 ? recipe.maker_of(address) : nullptr;
  if (stage == nullptr || kind_of(*stage).makes != Thing::kModel) return {};
  if (stage->find<train::TrainOptions>() != nullptr)
    return {.text = stage->get<DataOptions>().sources().front().train};
  return tokenizer_source(recipe, stage->get<ModelOptions>().from, hops - 1);
}

TokenizerSource tokenizer_source(const Recipe& recipe, const std::string& address) {
  return tokenizer_source(recipe, address, recipe.stages.size());
}

MaybeTokenizer open_tokenizer(const Recipe& recipe, const TokenizerSource& source) {
  try {
    if (!source.text.empty()) return tokenizer_of_text(recipe, source.text);
    if (source.model.empty()) return std::nullopt;
    if (const auto preset = preset_of(source.model)) return artifacts::new_tokenizer(preset_spec(*preset));
    if (!artifacts::model_shape(source.model)) return std::nullopt;  // none, or several
    return artifacts::model_tokenizer(source.model);
  } catch (const Error&) {
    return std::nullopt;  // missing_files() says why
  }
}

// Whether the tokenizer of a model is one that a stage will make.
bool has_trained_tokenizer(const Recipe& recipe, const std::string& address) {
  const std::string text = tokenizer_source(recipe, address).text;
  const auto* prepare = text.empty() ? nullptr : prepare_of(recipe, text_behind(recipe, text));
  return prepare != nullptr && stage_of(prepare->tokenizer);
}

// That a model reads.
KnownTokenizer known_tokenizer(const Recipe& recipe, const std::string& address) {
  const TokenizerSource source = tokenizer_source(recipe, address);
  if (!source.text.empty())
    return tokenizer_of_shards(recipe, {"data.train", source.text, Thing::kShards, "train"});
  const auto tokenizer = open_tokenizer(recipe, source).value_or(nullptr);
  return tokenizer ? KnownTokenizer{tokenizer->name(), tokenizer->fingerprint()} : KnownTokenizer{};
}

// The first step whose model a train stage may leave: validations choose it, or end the training.
int64_t first_model(const Stage& stage) {
  const auto& train = stage.get<train::TrainOptions>();
  const auto& watch = stage.get<WatchSection>();
  const int64_t end = train.epochs > 0 ? std::numeric_limits<int64_t>::max() : train.steps,
                every = watch_decides(stage) && watch->every > 0 ? watch->every : train.validate_every;
  if (every == 0 || (!train.keep_best && train.patience == 0)) return end;
  if (train.keep_best) return std::min(every, end);
  return train.patience < end / every ? every * (train.patience + 1) : end;
}

// What keeps a model's own files from having one: ": " and the reason.
std::string why_no_tokenizer(const std::string& address) {
  try {
    if (!preset_of(address) && !stage_of(address))
      artifacts::foreign_tokenizer(artifacts::find_model(address).path);
  } catch (const Error& error) {
    return fmt::format(": {}", error.what());
  }
  return "";
}

std::optional<models::DecoderSpec> spec_behind(const Recipe& recipe, const std::string& address,
                                               size_t hops) {
  if (const auto preset = preset_of(address)) {
    const auto known = preset_names();
    if (std::find(known.begin(), known.end(), *preset) == known.end()) return std::nullopt;
    return preset_spec(*preset);
  }
  if (!stage_of(address)) return shape_on_disk(address);
  const Stage* stage = recipe.maker_of(address);
  const ModelOptions* model = stage != nullptr && hops > 0 ? stage->find<ModelOptions>() : nullptr;
  if (model == nullptr || kind_of(*stage).makes != Thing::kModel) return std::nullopt;
  auto spec = model->from.empty() ? std::optional(model->spec()) : spec_behind(recipe, model->from, hops - 1);
  const auto* file = stage->find<artifacts::ExportOptions>();
  const bool expands = file != nullptr && artifacts::export_formats().at(file->format).merges;
  return spec && expands ? models::without_adapters(*spec) : spec;
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
    const Stage* stage = recipe.maker_of(address);
    const auto* training = stage != nullptr ? stage->find<data::BpeTrainingOptions>() : nullptr;
    return training != nullptr ? std::optional(training->vocabulary) : std::nullopt;
  }
  try {
    return data::make_tokenizer(address)->vocabulary();
  } catch (const Error&) {
    return std::nullopt;  // missing_files() says why
  }
}

std::unique_ptr<data::Tokenizer> tokenizer_of(const Recipe& recipe, const std::string& address) {
  return open_tokenizer(recipe, tokenizer_source(recipe, address)).value_or(nullptr);
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

void StageCheck::demand_tokenizer(const char* key, const char* model_key, const std::string& address,
                                  const std::string& instead) {
  if (alone) return;  // it opens the model at once
  const MaybeTokenizer known = open_tokenizer(recipe, tokenizer_source(recipe, address));
  if (known && *known == nullptr)
    add({key, model_key}, fmt::format("needs a model with a tokenizer, and {} has none that is supported{}{}",
                                      address, why_no_tokenizer(address), instead));
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

void StageCheck::demand_texts(const char* key, const std::vector<std::string>& texts) {
  if (texts.empty()) add(key, "must name at least one text file, got none");
  for (size_t i = 0; i < texts.size(); ++i)
    if (texts[i].empty()) add(key, fmt::format("must name text files, got an empty path as text {}", i + 1));
}

void StageCheck::check_limit() {
  const auto& data = stage.get<DataOptions>();
  if (std::string misfit = data::limit_misfit(data.limit, data.sequence); !misfit.empty())
    add({"data.limit", "data.sequence"}, std::move(misfit));
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
    const auto* prepare = prepare_of(recipe, text_behind(recipe, source.train));
    const auto needed = prepare != nullptr ? tokenizer_size(recipe, prepare->tokenizer) : std::nullopt;
    if (needed && spec.vocabulary < *needed)
      add(keys, fmt::format("must be at least {}, the vocabulary of tokenizer \"{}\", got {}", *needed,
                            prepare->tokenizer, spec.vocabulary));
  }
}

void StageCheck::check_reads(const std::vector<std::string>& keys, const std::string& model,
                             const char* of_bytes) {
  const std::string text = stage.get<DataOptions>().sources().front().train;
  const KnownTokenizer made = tokenizer_of_shards(recipe, {"data.train", text, Thing::kShards, "train"}),
                       read = known_tokenizer(recipe, model);
  if (differ(made, read))
    add(keys, fmt::format("must read tokenizer {}, which {} is made with, got {}, which reads {}{}",
                          made.name, text, model, read.name, made.name == "bytes" ? of_bytes : ""));
}

void StageCheck::check_prompts(const char* key, const std::vector<std::string>& prompts,
                               const std::string& model, const std::optional<models::DecoderSpec>& spec) {
  const auto tokenizer = tokenizer_of(recipe, model);
  const bool empty = std::find(prompts.begin(), prompts.end(), "") != prompts.end();
  if (empty && has_trained_tokenizer(recipe, model))
    add(key, fmt::format("\"\": {}, and a tokenizer that a stage makes begins a text with none",
                         eval::length_misfit(0, 1)));
  if (tokenizer == nullptr) return;
  const int64_t context = spec ? spec->context : std::numeric_limits<int64_t>::max();
  for (const std::string& prompt : prompts)
    if (const std::string misfit = eval::prompt_misfit(*tokenizer, prompt, context); !misfit.empty())
      add({key, "model.context"}, misfit);
}

void StageCheck::check_given(const char* key, int64_t prompt,
                             const std::optional<models::DecoderSpec>& spec) {
  const auto& data = stage.get<DataOptions>();
  if (prompt == 0 && !data.isolates())
    return add({key, "data.isolate_documents"},
               "must be at least 1 where rows join documents: isolate or pack them, and each has a prompt of "
               "its own");
  for (const SourceOptions& source : prompt == 0 ? data.sources() : std::vector<SourceOptions>())
    if (std::string misfit = prompts_misfit(source.train, says_what_is_learned(recipe, source.train));
        !misfit.empty())
      add({key, data.mixture.empty() ? "data.train" : "data.mixture"}, std::move(misfit));
  if (prompt > data.sequence)
    add({key, "data.sequence"},
        fmt::format("must be at most a row's data.sequence {}, got {}", data.sequence, prompt));
  if (spec && prompt >= spec->context)
    add({key, "model.context"},
        fmt::format("must be less than the model's context {}, got {}", spec->context, prompt));
}

void StageCheck::check_export(const std::optional<quantize::QuantizeOptions>* grids) {
  const auto& options = stage.get<artifacts::ExportOptions>();
  const std::string& from = stage.get<ModelOptions>().from;
  auto spec = spec_of(recipe, stage);
  try {
    if (spec) spec->validate();
  } catch (const ConfigError&) {  // a problem of the stage that makes the model
    spec.reset();
  }
  const auto tokenizer = tokenizer_of(recipe, from);
  const Stage* source = recipe.maker_of(from);
  const auto* training = source != nullptr ? source->find<train::TrainOptions>() : nullptr;
  QuantizeSection trained;
  if (training != nullptr) trained = source->get<QuantizeSection>();
  const bool known = training != nullptr && training->epochs == 0.0;  // how many steps epochs are is not
  if (trained && known && !trained->active(training->steps - 1)) trained.reset();
  if (grids == nullptr && source != nullptr) grids = &trained;  // a file of another stage holds values
  if (grids == &trained && trained) check_early(*source, *trained);
  const std::string of = source != nullptr ? fmt::format(" (of stage {})", source->name) : "";
  for (const artifacts::Misfit& misfit :
       artifacts::export_misfits(options, {spec ? &*spec : nullptr, tokenizer.get(), grids})) {
    const std::string& part = misfit.part;
    if (part == "type" || part == "embedding_type")
      add({"export." + part, "export.format", "model.width"}, misfit.why);
    else if (part == "activations")
      add({"export.activations", "export.format"}, misfit.why);
    else if (part == "license" || part == "base_model")
      add(("export." + part).c_str(), misfit.why);
    else if (part == "ollama")
      add({"export.ollama", "export.format"}, misfit.why);
    else if (part == "format" || part == "tokenizer")
      add({"export.format", "model.from"}, misfit.why);
    else if (grids == &trained)
      add({"export.format", "model.from"}, misfit.why + of);
    else
      add({fmt::format("quantize.{}.grid", part), "export.format"}, misfit.why);
  }
}

// A model that is on no grid yet, where the file is of codes alone.
void StageCheck::check_early(const Stage& source, const quantize::QuantizeOptions& trained) {
  const int64_t first = first_model(source);
  if (first > trained.from_step) return;
  const std::string& format = stage.get<artifacts::ExportOptions>().format;
  const std::string key = source.get<train::TrainOptions>().keep_best ? "train.keep_best" : "train.patience";
  const std::optional<quantize::QuantizeOptions> none;
  if (artifacts::export_misfits({.format = format}, {.grids = &none}).empty()) return;
  add({"export.format", fmt::format("stages.{}.{}", source.name, key)},
      fmt::format(
          "format {} packs the codes of a model's own grids, and {} of stage {} may leave the model of "
          "{} steps, none of them on its grid (quantize.from_step {}); raise train.validate_every, or lower "
          "from_step",
          format, key, source.name, first, trained.from_step));
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
