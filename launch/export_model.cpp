#include "launch/export_model.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "formats/ggml_blocks.h"
#include "models/adapters.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "quantize/hf_packing.h"
#include "train/checkpoint.h"

namespace retort::launch {
namespace {

at::ScalarType hf_dtype(const std::string& type) {
  if (type == "own" || type == "f32") return at::kFloat;
  if (type == "f16") return at::kHalf;
  check<ConfigError>(type == "bf16", "an HF folder holds f32, f16 or bf16, got type {}", type);
  return at::kBFloat16;
}

// What is written: the model as it was opened, or without its adapters.
struct Source {
  const models::Decoder& decoder;
  models::WeightMap& map;
  const data::Tokenizer* tokenizer;
  const formats::Json& generation;
  std::vector<int32_t> ends;
};

bool is_packed(const std::string& format) {
  const std::vector<std::string> layouts = quantize::hf_layout_names();
  return std::find(layouts.begin(), layouts.end(), format) != layouts.end();
}

// What packing the matrices in a layout adds to the folder.
models::HfExtras packing(const Source& model, const recipes::ExportOptions& options) {
  const auto* map = dynamic_cast<const quantize::PackingMap*>(&model.map);
  check<ConfigError>(map != nullptr && map->enabled(),
                     "format {} packs a model's own grids, and this one lies on none; quantize it (retort "
                     "quantize --scheme rtn-w4a16, or a recipe's quantize section)",
                     options.format);
  check<ConfigError>(options.type != "bf16",
                     "a {} folder holds f32 or f16 beside its codes: bf16 would round their scales",
                     options.format);
  return quantize::pack_for_hf(options.format, model.decoder, *map, options.activations,
                               hf_dtype(options.type));
}

void export_hf(const Source& model, const recipes::ExportOptions& options, const Path& out,
               FileSystem& files) {
  models::HfExtras extras;
  if (is_packed(options.format)) extras = packing(model, options);
  if (model.tokenizer) {
    extras.files.merge(model.tokenizer->hf_files());
    // Without these transformers puts its own defaults, which would be ordinary tokens of our vocabulary.
    const auto id = [](std::optional<int32_t> token) {
      return token ? formats::Json(*token) : formats::Json();
    };
    const std::vector<int32_t> prefix = model.tokenizer->prefix();
    extras.config["bos_token_id"] = prefix.empty() ? formats::Json() : formats::Json(prefix.front());
    extras.config["eos_token_id"] = id(model.tokenizer->separator());
  }
  extras.generation = model.generation;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})  // as the model's own files say
    if (const auto said = model.generation.find(key); said != model.generation.end() && !said->is_null())
      extras.config[key] = *said;
  models::save_hf_folder(files, out, model.decoder, model.map, hf_dtype(options.type), extras);
}

models::Packer packer_of(const Source& model, const recipes::ExportOptions& options) {
  if (options.type == "own") {
    if (const auto* map = dynamic_cast<const quantize::PackingMap*>(&model.map))
      return [map](const models::Parameter& p) { return map->pack(p); };
  }
  const auto type = formats::ggml_type_named(options.type == "own" ? "f32" : options.type).type;
  const auto embedding =
      options.embedding_type == "same" ? type : formats::ggml_type_named(options.embedding_type).type;
  return [&map = model.map, type, embedding](const models::Parameter& p) {
    const bool table = p.role == models::Role::kEmbedding || p.role == models::Role::kHead;
    const bool matrix = table || p.role == models::Role::kMatrix;
    const auto chosen = table ? embedding : matrix ? type : formats::GgmlType::F32;
    return formats::pack(chosen, map.apply(p, p.master).contiguous());
  };
}

// The model that is read would be gone once its own file holds it in another form.
void check_not_source(const std::string& source, const Path& out) {
  std::error_code no_path;  // preset:NAME is no file
  check<IoError>(!std::filesystem::equivalent(source, out, no_path),
                 "{}: is the model that is read; name another place for the export", out.string());
}

void write(const Source& model, const recipes::ExportOptions& options, const Path& out, FileSystem& files) {
  if (options.format != "gguf") return export_hf(model, options, out, files);
  auto tokenizer = model.tokenizer ? model.tokenizer->gguf_metadata() : formats::GgufMetadata{};
  tokenizer = data::padded(std::move(tokenizer), model.decoder.vocabulary());
  tokenizer = models::with_end_tokens(std::move(tokenizer), model.ends);
  models::save_gguf(files, out, model.decoder, packer_of(model, options), tokenizer, "retort");
}

constexpr std::string_view kCommand = "# retort quantize ";  // begins such a checkpoint's recipe

// A checkpoint takes the place of an older one of this verb only: rotation would remove a run's.
void check_replaceable(const Path& checkpoints, const std::string& source) {
  for (const Path& path : train::list_checkpoints(checkpoints)) {
    std::error_code no_path;  // preset:NAME is no file
    check<IoError>(!std::filesystem::equivalent(path, source, no_path),
                   "--out: {}: is the model that is read; name another directory", path.string());
    const Path recipe = path / "recipe.yaml";
    check<IoError>(std::filesystem::exists(recipe) && read_text(recipe).starts_with(kCommand),
                   "--out: {}: holds a run's checkpoints, which are not replaced; name another directory",
                   checkpoints.string());
  }
}

void write_checkpoint(const OpenedModel& model, const Path& out, FileSystem& files) {
  train::CheckpointContent content;
  content.extra = model_facts(model.decoder->spec(), model.tokenizer ? model.tokenizer->name() : "",
                              std::nullopt, model.generation);
  if (!model.tokenizer) content.extra.erase("tokenizer");
  content.recipe = fmt::format("{}{}\n", kCommand, model.source);
  for (const models::Parameter& p : model.decoder->parameters().unique())
    content.weights.emplace_back(p.name, p.master);
  train::save_checkpoint(files, out / "checkpoints", content, 1);
}

}  // namespace

uint64_t export_model(const OpenedModel& model, const recipes::ExportOptions& options, const Path& out,
                      FileSystem& files) {
  const at::NoGradGuard no_grad;
  check_not_source(model.source, out);
  if (options.format == "checkpoint") {
    check_replaceable(out / "checkpoints", model.source);
    write_checkpoint(model, out, files);
    return bytes_below(out);
  }
  const models::Decoder& decoder =
      model.need_decoder(options.format == "gguf" ? "architecture in GGUF" : "architecture in transformers");
  if (decoder.spec().lora_rank == 0) {
    write({decoder, *model.map, model.tokenizer.get(), model.generation, model.ends()}, options, out, files);
  } else {
    check<ConfigError>(options.type != "own" || model.quantized() == nullptr,
                       "{}: a weight merged with its adapter lies on no grid; name a type", model.source);
    const auto merged = models::merge_adapters(decoder, *model.map);
    models::IdentityMap identity;
    write({*merged, identity, model.tokenizer.get(), model.generation, model.ends()}, options, out, files);
  }
  return bytes_below(out);
}

uint64_t bytes_below(const Path& path) {
  if (!std::filesystem::is_directory(path)) return std::filesystem::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

}  // namespace retort::launch
