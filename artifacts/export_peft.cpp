// Adapters alone, for peft and for llama.cpp: the base stays where it is, and the folder of peft says where.
#include "artifacts/export_formats.h"
#include "core/error.h"
#include "models/family.h"
#include "models/gguf_adapter.h"
#include "models/peft_folder.h"

namespace retort::artifacts {
namespace {

const AdapterFacts& need_adapters(const ExportSource& source, const ExportOptions& options) {
  check<ConfigError>(
      source.adapters != nullptr,
      "format {} holds adapters, and this model has none; train a stage with adapters, or name "
      "another format",
      options.format);
  return *source.adapters;
}

// Those that the folder holds.
int64_t trained_parameters(const models::Model& model) {
  int64_t count = 0;
  for (const models::Parameter& p : model.parameters().unique())
    if (!p.borrowed) count += p.master.numel();
  return count;
}

void write_peft(const ExportSource& source, const ExportOptions& options, const Path& out,
                FileSystem& files) {
  const AdapterFacts& adapters = need_adapters(source, options);
  std::map<std::string, std::string> beside;
  if (source.tokenizer) beside = source.tokenizer->hf_files();
  beside["README.md"] = model_card({.origin = source.origin,
                                    .facts = source.card,
                                    .spec = source.model.spec(),
                                    .parameters = trained_parameters(source.model),
                                    .training = source.training,
                                    .library = "peft",
                                    .relation = "adapter",
                                    .holds = "as adapters without their base"});
  models::save_peft(files, out, source.model,
                    {adapters.options, std::filesystem::absolute(adapters.base).string()}, beside);
}

void write_gguf(const ExportSource& source, const ExportOptions& options, const Path& out,
                FileSystem& files) {
  models::save_gguf_adapter(files, out, source.model, need_adapters(source, options).options, "retort");
}

std::string architecture_misfit(const models::DecoderSpec& spec) {
  if (models::families().at(spec.family).hf_tensors) return "";
  return fmt::format(
      "adapters of a {} model have a form in checkpoints of retort only: no other software has "
      "such an architecture",
      spec.family);
}

}  // namespace

ExportFormat peft_export() {
  return {.name = "peft",
          .noun = "a peft folder",
          .holds = "a folder of adapters without their base, for peft",
          .types = {"f32"},
          .merges = false,
          .adapters = true,
          .card = true,
          .architecture_misfit = architecture_misfit,
          .check_place = check_card_place,
          .write = write_peft};
}

ExportFormat gguf_lora_export() {
  return {.name = "gguf-lora",
          .noun = "a GGUF adapter",
          .holds = "adapters for llama.cpp's --lora, over a GGUF of their base",
          .types = {"f32"},
          .file = "adapter.gguf",
          .merges = false,
          .adapters = true,
          .architecture_misfit = architecture_misfit,
          .adapters_misfit = models::gguf_adapter_misfit,
          .write = write_gguf};
}

}  // namespace retort::artifacts
