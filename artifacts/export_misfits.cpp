#include "artifacts/export_misfits.h"

#include <algorithm>

#include "artifacts/export_formats.h"
#include "formats/ggml_blocks.h"
#include "models/family.h"

namespace retort::artifacts {
namespace {

// "f32, f16 or bf16".
std::string either(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i)
    out += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return out;
}

std::string type_misfit(const ExportFormat& format, const std::string& type) {
  const auto& types = format.types;
  if (type == "own" || type == "same" || std::find(types.begin(), types.end(), type) != types.end())
    return "";
  return fmt::format("{} holds {}, got {}", format.noun, either(types), type);
}

// The first tensor whose rows do not divide into blocks of its type.
std::string rows_misfit(const ExportOptions& options, const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique()) {
    const bool table = p.role == models::Role::kEmbedding || p.role == models::Role::kHead;
    if (!table && p.role != models::Role::kMatrix) continue;
    const bool other = table && options.embedding_type != "same";
    const auto& type = formats::ggml_type_named(other ? options.embedding_type : options.type);
    const int64_t row = p.shape.back();
    if (row % type.block != 0)
      return fmt::format("{} has rows of {}, and {} wants a multiple of {}; {} takes them", p.name, row,
                         type.name, type.block, row % 32 == 0 ? "q8_0" : "f16");
  }
  return "";
}

// What the file holds: without adapters where the format merges them.
models::DecoderSpec written(const ExportFormat& format, models::DecoderSpec spec) {
  if (format.merges) spec.lora_rank = 0;
  return spec;
}

std::string grids_misfit(const ExportOptions& options, const ExportFormat& format,
                         const ExportSubject& subject) {
  const bool on_grids = subject.grids->has_value();
  if (format.packs == Packs::kMatrices && !on_grids)
    return fmt::format(
        "format {} packs the codes of a model's own grids, and this model has none; quantize it first "
        "(retort quantize --scheme rtn-w4a16, or a recipe's quantize section)",
        options.format);
  if (on_grids && options.type == "own" && format.merges && subject.spec && subject.spec->lora_rank > 0)
    return "a weight merged with its adapter is on no grid; name a type";
  return "";
}

// What the format says of the model on its grids.
std::string packing_misfit(const ExportOptions& options, const ExportFormat& format,
                           const ExportSubject& subject) {
  const auto model = models::make_model(written(format, *subject.spec), at::kMeta);
  try {
    const quantize::QuantizeMap map(**subject.grids, model->parameters());
    return format.packing_misfit(*model, map, options.activations);
  } catch (const ConfigError&) {
    return "";  // grids that do not fit the tensors are their section's problem
  }
}

}  // namespace

std::vector<Misfit> export_misfits(const ExportOptions& options, const ExportSubject& subject) {
  const ExportFormat& format = export_formats().at(options.format);
  std::vector<Misfit> out;
  const auto add = [&](const char* part, std::string why) {
    if (!why.empty()) out.push_back({part, std::move(why)});
    return out.empty();
  };
  const bool known = subject.spec && add("format", format.architecture_misfit(*subject.spec));
  const bool typed = add("type", type_misfit(format, options.type)) &
                     add("embedding_type", type_misfit(format, options.embedding_type));
  if (options.activations && !format.activations)
    add("activations", fmt::format("only compressed-tensors says that activations are rounded, got format {}",
                                   options.format));
  if (options.ollama && options.format != "gguf")
    add("ollama", fmt::format("is for a GGUF, got format {}", options.format));
  add("license", license_misfit(options.license));
  add("base_model", base_model_misfit(options.base_model));
  if (known && typed && options.type != "own") {
    const auto shape = models::make_model(written(format, *subject.spec), at::kMeta);
    add("type", rows_misfit(options, shape->parameters()));
  }
  if (subject.tokenizer) add("tokenizer", format.tokenizer_misfit(*subject.tokenizer));
  if (subject.grids == nullptr) return out;
  add("format", grids_misfit(options, format, subject));
  const bool values = format.packs == Packs::kEverything && options.type != "own";
  if (*subject.grids && !values)
    for (GridMisfit& misfit : grid_misfits(format, **subject.grids))
      out.push_back({std::move(misfit.part), std::move(misfit.why)});
  if (known && *subject.grids && format.packs == Packs::kMatrices && out.empty())
    add("format", packing_misfit(options, format, subject));
  return out;
}

}  // namespace retort::artifacts
