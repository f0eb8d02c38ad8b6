#include "artifacts/open_model.h"

#include <algorithm>

#include "artifacts/model_facts.h"
#include "artifacts/model_shape.h"
#include "core/error.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/llama2c.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace retort::artifacts {
namespace {

OpenedModel of_checkpoint(const train::LoadedCheckpoint& checkpoint) {
  OpenedModel out;
  out.source = checkpoint.path.string();
  ModelFacts facts = read_model_facts(checkpoint.extra, out.source + "/manifest.json");
  facts.spec.validate();
  out.decoder = models::make_model(facts.spec);
  if (facts.tokenizer) out.tokenizer = data::copied_tokenizer(*facts.tokenizer, checkpoint.path);
  out.generation = std::move(facts.generation);
  out.quantize = std::move(facts.quantize);
  if (out.quantize) {
    auto map = std::make_unique<quantize::QuantizeMap>(*out.quantize, out.decoder->parameters());
    map->enable(checkpoint.step > 0 && out.quantize->active(checkpoint.step - 1));  // as its last step did
    out.grids = std::move(map);
  }
  train::copy_weights(checkpoint, out.decoder->parameters());  // the scales that the map declared among them
  models::bind_working(out.decoder->parameters(), out.map(), at::kFloat);
  return out;
}

OpenedModel of_checkpoints(const Path& directory, Log& log) {
  const auto newest = train::load_latest_checkpoint(directory, log);
  check<DataError>(newest.has_value(), "{}: its checkpoints are gone", directory.string());
  return of_checkpoint(*newest);
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

OpenedModel plain(std::unique_ptr<models::Model> decoder, std::string source) {
  OpenedModel out;
  out.source = std::move(source);
  out.decoder = std::move(decoder);
  return out;
}

OpenedModel of_gguf(const Path& path, Log& log) {
  OpenedModel out = plain(models::load_gguf(path), path.string());
  const formats::GgufFile file(path);
  if (file.find("tokenizer.ggml.tokens") != nullptr) out.tokenizer = own_tokenizer(path, log);
  out.generation = models::gguf_generation(file);
  // Bytes have no end, and name byte 0 only because the format knows no other word for it (ByteTokenizer).
  const formats::Json none = {{"eos_token_id", 0}};
  if (out.tokenizer && out.tokenizer->name() == "bytes" && out.generation == none) out.generation.clear();
  return out;
}

OpenedModel of_hf_folder(const Path& directory, Log& log) {
  OpenedModel out = plain(models::load_hf_folder(directory), directory.string());
  const auto is_there = [&](const char* name) { return std::filesystem::exists(directory / name); };
  if (is_there("tokenizer.json") || is_there("tokenizer.model") || is_there("merges.txt") ||
      is_there("vocab.bpe"))
    out.tokenizer = own_tokenizer(directory, log);
  out.generation = models::hf_generation(directory);
  return out;
}

OpenedModel of(const Artifact& found, Log& log) {
  switch (found.kind) {
    case Kind::kCheckpoint:
      return of_checkpoint(train::load_checkpoint(found.path));
    case Kind::kCheckpoints:
      return of_checkpoints(found.path, log);
    case Kind::kHfFolder:
      return of_hf_folder(found.path, log);
    case Kind::kGguf:
      return of_gguf(found.path, log);
    case Kind::kLlama2c:
      return plain(models::load_llama2c(found.path), found.path.string());
    default:
      fail<InternalError>("[open] {}: no reader for such a model", found.path.string());
  }
}

// Rows behind the tokenizer's ids are padding. An added token may have no row: texts do without it.
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

models::WeightMap& OpenedModel::map() const {
  if (grids) return *grids;
  return *identity_;
}

std::vector<int32_t> OpenedModel::ends() const {
  std::vector<int32_t> out = models::end_tokens(generation, decoder->vocabulary());
  if (const auto separator = tokenizer ? tokenizer->separator() : std::nullopt) {
    std::erase(out, *separator);
    out.insert(out.begin(), *separator);
  }
  return out;
}

const data::Tokenizer& OpenedModel::need_tokenizer() const {
  check<DataError>(tokenizer != nullptr,
                   "{}: has no tokenizer that is supported; give token ids instead of text", source);
  return *tokenizer;
}

OpenedModel open_model(const Path& path, Log& log) {
  const at::NoGradGuard no_grad;
  OpenedModel model = of(find_model(path), log);
  if (model.tokenizer) fit(model, log);
  return model;
}

OpenedModel new_model(const models::DecoderSpec& spec, uint64_t seed, std::string source) {
  const at::NoGradGuard no_grad;
  OpenedModel out = plain(models::make_model(spec), std::move(source));
  const train::TrainOptions defaults;
  models::initialise(out.decoder->parameters(), defaults.init, defaults.init_std, seed);
  if (out.decoder->vocabulary() == 256) out.tokenizer = data::make_byte_tokenizer();
  models::bind_working(out.decoder->parameters(), out.map(), at::kFloat);
  return out;
}

}  // namespace retort::artifacts
