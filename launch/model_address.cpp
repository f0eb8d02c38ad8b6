#include "launch/model_address.h"

#include <algorithm>

#include "core/error.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/llama2c.h"
#include "models/spec_json.h"
#include "recipes/address.h"
#include "recipes/presets.h"
#include "recipes/print_section.h"
#include "recipes/stage_directory.h"
#include "recipes/yaml_section.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace retort::launch {
namespace {

namespace fs = std::filesystem;

quantize::QuantizeOptions parse_quantize(const std::string& yaml, const std::string& source) {
  recipes::Problems problems;
  quantize::QuantizeOptions options;
  recipes::read_section(recipes::parse_yaml(yaml, source + ": quantize", problems), options, problems);
  recipes::raise_if_any(std::move(problems));
  return options;
}

OpenedModel from_checkpoint(const train::LoadedCheckpoint& checkpoint) {
  OpenedModel out;
  out.source = checkpoint.path.string();
  const std::string manifest = out.source + "/manifest.json";
  check<DataError>(checkpoint.extra.contains("model"), "[{}] does not say what model it holds", manifest);
  const models::DecoderSpec spec = models::from_json(checkpoint.extra.at("model"), manifest);
  spec.validate();
  out.decoder = models::make_model(spec);
  if (checkpoint.extra.contains("tokenizer"))
    out.tokenizer =
        data::copied_tokenizer(formats::json_text(checkpoint.extra, "tokenizer", manifest), checkpoint.path);
  out.map = std::make_unique<models::IdentityMap>();
  if (checkpoint.extra.contains("generation")) out.generation = checkpoint.extra.at("generation");
  if (checkpoint.extra.contains("quantize")) {
    out.quantize = parse_quantize(formats::json_text(checkpoint.extra, "quantize", manifest), manifest);
    auto map = std::make_unique<quantize::QuantizeMap>(*out.quantize, out.decoder->parameters());
    map->enable(checkpoint.step > 0 && out.quantize->active(checkpoint.step - 1));  // as its last step did
    out.map = std::move(map);
  }
  train::copy_weights(checkpoint, out.decoder->parameters());  // the scales that the map declared among them
  models::bind_working(out.decoder->parameters(), *out.map, at::kFloat);
  return out;
}

// Bytes as tokens, as another file tells of them.
bool is_bytes(const data::Tokenizer& tokenizer) {
  if (tokenizer.vocabulary() != 256) return false;
  for (int32_t id = 0; id < 256; ++id)
    if (tokenizer.token_bytes(id) != std::string(1, static_cast<char>(id))) return false;
  return true;
}

// The tokenizer beside or inside a model's file. One that is not supported leaves a model that knows ids
// only.
std::unique_ptr<data::Tokenizer> own_tokenizer(const Path& path, Log& log) {
  try {
    auto tokenizer = data::open_tokenizer(path);
    return is_bytes(*tokenizer) ? data::make_byte_tokenizer() : std::move(tokenizer);
  } catch (const Error& error) {
    log.warn("{}; the model opens without a tokenizer", error.what());
    return nullptr;
  }
}

std::unique_ptr<data::Tokenizer> gguf_tokenizer(const Path& path, Log& log) {
  if (formats::GgufFile(path).find("tokenizer.ggml.tokens") == nullptr) return nullptr;
  return own_tokenizer(path, log);
}

std::unique_ptr<data::Tokenizer> hf_tokenizer(const Path& directory, Log& log) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "merges.txt", "vocab.bpe"})
    if (fs::exists(directory / name)) return own_tokenizer(directory, log);
  return nullptr;
}

OpenedModel plain(std::unique_ptr<models::Model> decoder, std::unique_ptr<data::Tokenizer> tokenizer,
                  const Path& source, formats::Json generation = formats::Json::object()) {
  OpenedModel out;
  out.source = source.string();
  out.map = std::make_unique<models::IdentityMap>();
  out.decoder = std::move(decoder);
  out.tokenizer = std::move(tokenizer);
  out.generation = std::move(generation);
  return out;
}

OpenedModel from_gguf(const Path& path, Log& log) {
  OpenedModel out = plain(models::load_gguf(path), gguf_tokenizer(path, log), path,
                          models::gguf_generation(formats::GgufFile(path)));
  // Bytes have no end, and name byte 0 only because the format knows no other word for it (ByteTokenizer).
  const formats::Json none = {{"eos_token_id", 0}};
  if (out.tokenizer && out.tokenizer->name() == "bytes" && out.generation == none) out.generation.clear();
  return out;
}

OpenedModel from_preset(const std::string& name, uint64_t seed) {
  auto decoder = models::make_model(recipes::preset_spec(name));
  const train::TrainOptions defaults;
  models::initialise(decoder->parameters(), defaults.init, defaults.init_std, seed);
  const bool bytes = decoder->vocabulary() == 256;
  OpenedModel out =
      plain(std::move(decoder), bytes ? data::make_byte_tokenizer() : nullptr, "preset:" + name);
  models::bind_working(out.decoder->parameters(), *out.map, at::kFloat);
  return out;
}

OpenedModel from_directory(const Path& path, Log& log) {
  if (fs::exists(path / "manifest.json")) return from_checkpoint(train::load_checkpoint(path));
  if (fs::exists(path / "config.json"))
    return plain(models::load_hf_folder(path), hf_tokenizer(path, log), path, models::hf_generation(path));
  if (fs::exists(path / "model.gguf")) return from_gguf(path / "model.gguf", log);
  const Path checkpoints = path.filename() == "checkpoints" ? path : path / "checkpoints";
  if (const auto newest = train::load_latest_checkpoint(checkpoints, log)) return from_checkpoint(*newest);
  std::vector<std::string> stages;  // of a run directory
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory() && !recipes::is_put_aside(entry.path()) &&
        (fs::exists(entry.path() / "checkpoints") || fs::exists(entry.path() / "model.gguf")))
      stages.push_back(entry.path().string());
  std::sort(stages.begin(), stages.end());
  check<DataError>(!stages.empty(),
                   "{}: holds no model: no manifest.json, config.json, model.gguf or checkpoints",
                   path.string());
  check<ConfigError>(stages.size() == 1, "{}: holds several models, name one: {}", path.string(),
                     fmt::join(stages, ", "));
  return from_directory(stages.front(), log);
}

OpenedModel open_any(const std::string& address, const Path& run, uint64_t seed, Log& log) {
  if (const auto preset = recipes::preset_of(address)) return from_preset(*preset, seed);
  const Path path = resolve_stage(address, run);
  check<IoError>(fs::exists(path),
                 "{}: no such model (a checkpoint, run or HF directory, a .gguf file, or preset:NAME)",
                 address);
  if (fs::is_directory(path)) return from_directory(path, log);
  if (path.extension() == ".bin") return plain(models::load_llama2c(path), nullptr, path);
  check<DataError>(path.extension() == ".gguf", "{}: a model file must be a .gguf (or a .bin of llama2.c)",
                   path.string());
  return from_gguf(path, log);
}

}  // namespace

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

models::Decoder& OpenedModel::need_decoder(std::string_view what) const {
  auto* plain = dynamic_cast<models::Decoder*>(decoder.get());
  check<ConfigError>(plain != nullptr, "{}: a {} model has no {}: it stays a checkpoint of retort", source,
                     decoder->spec().family, what);
  return *plain;
}

std::string resolve_stage(const std::string& address, const Path& run) {
  const auto stage = recipes::stage_of(address);
  if (!stage) return address;
  check<ConfigError>(!run.empty(), "{}: a stage is known within its recipe only; name its directory",
                     address);
  return (run / *stage).string();
}

OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log) {
  const at::NoGradGuard no_grad;
  OpenedModel model = open_any(address, run, seed, log);
  if (model.tokenizer) check_fits(*model.tokenizer, *model.decoder, model.source);
  return model;
}

void check_fits(const data::Tokenizer& tokenizer, const models::Model& decoder, const std::string& source) {
  check<DataError>(tokenizer.vocabulary() <= decoder.vocabulary(),
                   "{}: its tokenizer {} has {} tokens, but its embedding {} rows", source, tokenizer.name(),
                   tokenizer.vocabulary(), decoder.vocabulary());
}

formats::Json model_facts(const models::DecoderSpec& spec, const std::string& tokenizer,
                          const std::optional<quantize::QuantizeOptions>& quantize,
                          const formats::Json& generation) {
  formats::Json facts = {{"model", models::to_json(spec)}, {"tokenizer", tokenizer}};
  if (!generation.empty()) facts["generation"] = generation;
  if (quantize) facts["quantize"] = recipes::print_section(*quantize);
  return facts;
}

}  // namespace retort::launch
