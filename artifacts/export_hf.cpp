// A Hugging Face folder: of values, or with its matrices as codes in one of the layouts that transformers and
// vLLM load.
#include "artifacts/export_formats.h"
#include "core/error.h"
#include "models/family.h"
#include "models/hf_folder.h"
#include "quantize/hf_packing.h"

namespace retort::artifacts {
namespace {

at::ScalarType dtype_of(const std::string& type) {
  return type == "f16" ? at::kHalf : type == "bf16" ? at::kBFloat16 : at::kFloat;
}

void add_tokenizer(const data::Tokenizer& tokenizer, models::HfExtras& extras) {
  extras.files.merge(tokenizer.hf_files());
  // Without these transformers puts its own defaults, which would be ordinary tokens of our vocabulary.
  const auto id = [](std::optional<int32_t> token) {
    return token ? formats::Json(*token) : formats::Json();
  };
  const std::vector<int32_t> prefix = tokenizer.prefix();
  extras.config["bos_token_id"] = prefix.empty() ? formats::Json() : formats::Json(prefix.front());
  extras.config["eos_token_id"] = id(tokenizer.separator());
}

std::string card_of(const ExportSource& source, const ExportOptions& options, const std::string& relation) {
  const std::string holds = relation.empty()
                                ? fmt::format("as values in {}", options.type == "own" ? "f32" : options.type)
                                : fmt::format("packed as {} has it", options.format);
  return model_card({.origin = source.origin,
                     .facts = source.card,
                     .spec = source.model.spec(),
                     .parameters = source.model.parameters().expanded(),
                     .training = source.training,
                     .library = "transformers",
                     .relation = relation,
                     .holds = holds});
}

void write(const ExportSource& source, const ExportOptions& options, const Path& out, FileSystem& files,
           models::HfExtras extras) {
  if (source.tokenizer) add_tokenizer(*source.tokenizer, extras);
  extras.files["README.md"] = card_of(source, options, !extras.pack ? "" : "quantized");
  extras.generation = source.generation;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})  // as the model's own files say
    if (const auto known = source.generation.find(key); known != source.generation.end() && !known->is_null())
      extras.config[key] = *known;
  models::save_hf_folder(files, out, source.model, source.map, dtype_of(options.type), extras);
}

void write_values(const ExportSource& source, const ExportOptions& options, const Path& out,
                  FileSystem& files) {
  write(source, options, out, files, {});
}

void write_packed(const ExportSource& source, const ExportOptions& options, const Path& out,
                  FileSystem& files) {
  RETORT_ASSERT(source.grids != nullptr && source.grids->enabled());  // export_misfits() refuses others
  write(source, options, out, files,
        quantize::pack_for_hf(options.format, source.model, *source.grids, options.activations,
                              dtype_of(options.type)));
}

std::function<std::string(const models::DecoderSpec&)> architecture_misfit(const std::string& noun) {
  return [noun](const models::DecoderSpec& spec) {
    if (!models::families().at(spec.family).hf_model_types.empty()) return std::string();
    return fmt::format(
        "a {} model cannot be written as {}: transformers has no such architecture; it stays a checkpoint of "
        "retort",
        spec.family, noun);
  };
}

}  // namespace

ExportFormat hf_export() {
  const std::string noun = "an HF folder";
  return {.name = "hf",
          .noun = noun,
          .holds = "a folder of values, for transformers",
          .types = {"f32", "f16", "bf16"},
          .card = true,
          .architecture_misfit = architecture_misfit(noun),
          .check_place = check_card_place,
          .write = write_values};
}

ExportFormat packed_export(const std::string& layout, std::string holds, bool activations) {
  const std::string noun = fmt::format("a {} folder", layout);
  return {
      .name = layout,
      .noun = noun,
      .holds = std::move(holds),
      .types = {"f32", "f16"},  // bf16 would round the scales
      .packs = Packs::kMatrices,
      .activations = activations,
      .card = true,
      .grid_misfit = [layout](const quantize::Grid& grid) { return quantize::layout_misfit(layout, grid); },
      .packing_misfit = [layout](const models::Model& model, const quantize::PackingMap& map,
                                 bool rounds) { return quantize::folder_misfit(layout, model, map, rounds); },
      .architecture_misfit = architecture_misfit(noun),
      .check_place = check_card_place,
      .write = write_packed};
}

}  // namespace retort::artifacts
