#include "artifacts/open_model.h"

#include <algorithm>

#include "artifacts/copy_model.h"
#include "artifacts/model_facts.h"
#include "artifacts/model_shape.h"
#include "artifacts/open_stored.h"
#include "core/error.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/initial_values.h"
#include "models/llama2c.h"
#include "models/shape_of.h"
#include "models/stored_adapters.h"
#include "train/stored_checkpoint.h"
#include "train/trainer.h"

namespace retort::artifacts {
namespace {

// Set in the model, or left where they are.
enum class Weights { kSet, kStored };

OpenedStored of(const Artifact& found, Log& log, Weights weights, bool as_base);

// An adapter's base is a whole model: a chain of adapters could have no end.
void check_base(bool whole, bool as_base, const Path& path) {
  check<DataError>(whole || !as_base,
                   "{}: is an adapter, and the base of another; merge it first (retort export)",
                   path.string());
}

void replace(OpenedStored& opened, models::StoredModel stored) {
  opened.model.decoder = std::move(stored.model);
  opened.values = std::move(stored.values);
}

// The model below an adapter at `where`.
OpenedStored open_base(const Path& base, const std::string& where, Log& log, Weights weights) {
  check<DataError>(
      identify(base).kind != Kind::kNothing,
      "{}: its base is {}, and nothing is there; an adapter is used with the model that it is for", where,
      base.string());
  OpenedStored out = of(find_model(base), log, weights, /*as_base=*/true);
  replace(out, out.take_base());
  return out;
}

OpenedStored of_adapters(const train::LoadedCheckpoint& checkpoint, const AdapterFacts& facts, Log& log,
                         Weights weights) {
  const Path named = facts.base;
  const Path base = (named.is_absolute() ? named : checkpoint.path / named).lexically_normal();
  const std::string where = checkpoint.path.string() + "/manifest.json";
  OpenedStored out = open_base(base, where, log, weights);
  const std::string digest = models::weights_digest(out.model.decoder->parameters(), out.values);
  check<DataError>(digest == facts.digest,
                   "{}: was trained over weights of digest {}, and its base {} has {}", where, facts.digest,
                   base.string(), digest);
  models::StoredModel below{std::move(out.model.decoder), std::move(out.values)};
  replace(out, models::adapt(std::move(below), facts.options, 0));
  out.model.adapters = {facts.options, base.string(), digest};
  return out;
}

OpenedStored of_checkpoint(const train::LoadedCheckpoint& checkpoint, Log& log, Weights weights,
                           bool as_base) {
  OpenedStored opened;
  ModelFacts facts = read_model_facts(checkpoint.extra, checkpoint.path.string() + "/manifest.json");
  facts.spec.validate();
  check_base(!facts.adapters, as_base, checkpoint.path);
  if (facts.adapters)
    opened = of_adapters(checkpoint, *facts.adapters, log, weights);
  else
    opened.model.decoder = models::make_model(facts.spec, weights == Weights::kSet ? at::kCPU : at::kMeta);
  OpenedModel& out = opened.model;
  out.source = checkpoint.path.string();
  if (facts.tokenizer) out.tokenizer = data::copied_tokenizer(*facts.tokenizer, checkpoint.path);
  out.generation = std::move(facts.generation);
  out.quantize = std::move(facts.quantize);
  if (facts.origin != Origin()) out.origin = std::move(facts.origin);  // else that of an adapter's base
  out.training = checkpoint.extra.value("train", formats::Json::object());
  models::Parameters& parameters = out.decoder->parameters();
  if (out.quantize) {
    auto map = std::make_unique<quantize::QuantizeMap>(*out.quantize, parameters);
    map->enable(checkpoint.step > 0 && out.quantize->active(checkpoint.step - 1));  // as its last step did
    out.grids = std::move(map);
  }
  if (weights == Weights::kStored) {
    opened.values = train::checkpoint_values(checkpoint, parameters, std::move(opened.values));
    return opened;
  }
  train::copy_weights(checkpoint, parameters);  // the scales that the map declared among them
  models::bind_working(parameters, out.map(), at::kFloat);
  return opened;
}

OpenedStored of_checkpoints(const Path& directory, Log& log, Weights weights, bool as_base) {
  const auto model = train::load_model_checkpoint(directory, log);
  check<DataError>(model.has_value(), "{}: its checkpoints are gone", directory.string());
  return of_checkpoint(*model, log, weights, as_base);
}

// The tokenizer beside or inside a model's file. One that is not supported leaves a model that knows ids
// only.
std::unique_ptr<data::Tokenizer> own_tokenizer(const Path& path, Log& log) {
  try {
    return foreign_tokenizer(path);
  } catch (const Error& error) {
    log.warn("{}; the model opens without a tokenizer", error.what());
    return nullptr;
  }
}

OpenedStored plain(models::StoredModel stored, const Path& source, Weights weights) {
  OpenedStored out;
  out.model.source = source.string();
  if (weights == Weights::kSet)
    out.model.decoder = models::load_foreign(stored);
  else
    replace(out, std::move(stored));
  return out;
}

OpenedStored of_gguf(const Path& path, Log& log, Weights weights) {
  OpenedStored opened = plain(models::stored_gguf(path), path, weights);
  OpenedModel& out = opened.model;
  const formats::GgufFile file(path);
  if (file.find("tokenizer.ggml.tokens") != nullptr) out.tokenizer = own_tokenizer(path, log);
  out.generation = models::gguf_generation(file);
  out.origin = gguf_origin(file);
  // Bytes have no end, and name byte 0 only because the format knows no other word for it (ByteTokenizer).
  const formats::Json none = {{"eos_token_id", 0}};
  if (out.tokenizer && out.tokenizer->name() == "bytes" && out.generation == none) out.generation.clear();
  return opened;
}

OpenedStored of_hf_folder(const Path& directory, Log& log, Weights weights) {
  OpenedStored opened = plain(models::stored_hf_folder(directory), directory, weights);
  OpenedModel& out = opened.model;
  const auto is_there = [&](const char* name) { return std::filesystem::exists(directory / name); };
  if (is_there("tokenizer.json") || is_there("tokenizer.model") || is_there("merges.txt") ||
      is_there("vocab.bpe"))
    out.tokenizer = own_tokenizer(directory, log);
  out.generation = models::hf_generation(directory);
  out.origin = hf_origin(directory);
  return opened;
}

OpenedStored of_peft(const Path& directory, Log& log) {
  const models::PeftConfig config = models::read_peft_config(directory);
  const Path base = peft_base(directory, config);
  OpenedStored opened = open_base(base, (directory / models::kPeftConfig).string(), log, Weights::kSet);
  OpenedModel& out = opened.model;
  const std::string digest = models::weights_digest(out.decoder->parameters());
  out.decoder = models::load_peft(directory, config, std::move(out.decoder));
  models::bind_working(out.decoder->parameters(), out.map(), at::kFloat);
  out.adapters = {config.options, base.string(), digest};
  if (out.origin == Origin()) out.origin = hf_origin(directory);
  out.source = directory.string();
  return opened;
}

OpenedStored of(const Artifact& found, Log& log, Weights weights, bool as_base) {
  switch (found.kind) {
    case Kind::kCheckpoint:
      return of_checkpoint(train::load_checkpoint(found.path), log, weights, as_base);
    case Kind::kCheckpoints:
      return of_checkpoints(found.path, log, weights, as_base);
    case Kind::kHfFolder:
      return of_hf_folder(found.path, log, weights);
    case Kind::kPeft:
      check_base(false, as_base, found.path);
      return of_peft(found.path, log);
    case Kind::kGguf:
      return of_gguf(found.path, log, weights);
    case Kind::kLlama2c:
      return plain(models::stored_llama2c(found.path), found.path, weights);
    default:
      fail<InternalError>("[open] {}: no reader for such a model", found.path.string());
  }
}

// Rows after the tokenizer's ids are padding. An added token may have no row: texts do without it.
void fit(OpenedModel& model, Log& log) {
  const int64_t rows = model.decoder->vocabulary(), ids = model.tokenizer->vocabulary();
  for (int64_t id = rows; id < ids; ++id)
    check<DataError>(model.tokenizer->is_added(static_cast<int32_t>(id)),
                     "{}: its tokenizer {} has {} tokens, but its embedding {} rows", model.source,
                     model.tokenizer->name(), ids, rows);
  if (ids > rows)
    log.warn(
        "{}: added token {} of its tokenizer{} has no row in its embedding of {} and is dropped; a text "
        "that uses it is refused",
        model.source, model.tokenizer->token_bytes(static_cast<int32_t>(rows)),
        ids > rows + 1 ? fmt::format(" (and {} more)", ids - rows - 1) : "", rows);
  model.tokenizer = data::limited(std::move(model.tokenizer), rows);
  model.decoder->set_tokens(model.tokenizer->vocabulary());
}

}  // namespace

std::unique_ptr<models::Model> OpenedModel::take_base() {
  const at::NoGradGuard no_grad;
  if (!grids && !quantize) return std::move(decoder);
  auto values = f32_copy(*decoder, map());
  grids.reset();
  quantize.reset();
  return values;
}

namespace {

// For values that are made later: it has its scales.
std::shared_ptr<models::WeightMap> take_map(OpenedStored& opened) {
  for (models::Parameter& p : opened.model.decoder->parameters().unique())
    if (p.role == models::Role::kScale) p.master = opened.values(p).clone();
  if (opened.model.grids) return std::move(opened.model.grids);
  return std::make_shared<models::IdentityMap>();
}

// What of the path is opened.
Artifact wanted(const Path& path, bool strict) {
  Artifact found = find_model(path);
  if (const Path own = train::model_checkpoint(found.path);
      strict && found.kind == Kind::kCheckpoints && !own.empty())
    found.kind = Kind::kCheckpoint, found.path = own;
  return found;
}

}  // namespace

models::StoredModel OpenedStored::take_base() {
  if (!values) return {model.take_base(), {}};
  if (!model.grids) return {std::move(model.decoder), std::move(values)};
  auto shape = models::shape_of(*model.decoder, at::kMeta);
  for (models::Parameter& p : shape->parameters().unique())
    p.input_map = model.decoder->parameters().at(p.name).input_map;
  const auto map = take_map(*this);
  const std::shared_ptr<const models::Model> masters = std::move(model.decoder);
  model.quantize.reset();
  return {std::move(shape), [masters, map, values = std::move(values)](const models::Parameter& p) {
            const models::Parameter& master = masters->parameters().at(p.name);
            return map->apply(master, models::f32_of(values, master));
          }};
}

models::StoredModel OpenedStored::take_merged() {
  if (!values) return {models::merge_adapters(*model.decoder, model.map()), {}};
  const auto map = take_map(*this);
  return models::merge_adapters({std::move(model.decoder), std::move(values)}, map);
}

models::WeightMap& OpenedModel::map() const {
  if (grids) return *grids;
  return *identity_;
}

std::vector<int32_t> text_ends(const formats::Json& generation, int64_t vocabulary,
                               const data::Tokenizer* tokenizer) {
  std::vector<int32_t> out = models::end_tokens(generation, vocabulary);
  if (const auto separator = tokenizer ? tokenizer->separator() : std::nullopt) {
    std::erase(out, *separator);
    out.insert(out.begin(), *separator);
  }
  return out;
}

std::vector<int32_t> OpenedModel::ends() const {
  return text_ends(generation, decoder->vocabulary(), tokenizer.get());
}

const data::Tokenizer& OpenedModel::need_tokenizer() const {
  check<DataError>(tokenizer != nullptr,
                   "{}: has no tokenizer that is supported; give token ids instead of text", source);
  return *tokenizer;
}

OpenedModel open_model(const Path& path, Log& log, bool strict) {
  const at::NoGradGuard no_grad;
  OpenedModel model = of(wanted(path, strict), log, Weights::kSet, /*as_base=*/false).model;
  if (model.tokenizer) fit(model, log);
  return model;
}

OpenedStored open_stored(const Path& path, Log& log, bool strict) {
  const at::NoGradGuard no_grad;
  OpenedStored opened = of(wanted(path, strict), log, Weights::kStored, /*as_base=*/false);
  if (opened.model.tokenizer) fit(opened.model, log);
  return opened;
}

Path peft_base(const Path& directory, const models::PeftConfig& config) {
  const Path named = config.base, beside = (directory / named).lexically_normal();
  const std::string where = (directory / models::kPeftConfig).string();
  check<DataError>(!config.base.empty(), "{}: names no base; write its path as base_model_name_or_path",
                   where);
  const bool here = identify(named).kind != Kind::kNothing;
  check<DataError>(
      here || identify(beside).kind != Kind::kNothing,
      "{}: is for the base {}, and there is neither such a path nor {}; write the path of the base as "
      "base_model_name_or_path",
      where, config.base, beside.string());
  return std::filesystem::absolute(here ? named : beside).lexically_normal();
}

OpenedModel new_model(const models::DecoderSpec& spec, uint64_t seed, std::string source) {
  const at::NoGradGuard no_grad;
  OpenedModel out;
  out.source = std::move(source);
  out.decoder = models::make_model(spec);
  const train::TrainOptions defaults;
  models::initialise(out.decoder->parameters(), defaults.init, defaults.init_std, seed);
  out.tokenizer = new_tokenizer(spec);
  models::bind_working(out.decoder->parameters(), out.map(), at::kFloat);
  return out;
}

OpenedStored new_stored(const models::DecoderSpec& spec, uint64_t seed, std::string source) {
  OpenedStored out;
  out.model.source = std::move(source);
  out.model.decoder = models::make_model(spec, at::kMeta);
  out.model.tokenizer = new_tokenizer(spec);
  out.values = [shape = std::shared_ptr<const models::Model>(models::make_model(spec, at::kMeta)),
                seed](const models::Parameter& p) {
    const train::TrainOptions defaults;
    return models::initial_values(shape->parameters(), p, defaults.init, defaults.init_std, seed);
  };
  return out;
}

}  // namespace retort::artifacts
