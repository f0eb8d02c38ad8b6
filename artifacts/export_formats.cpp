#include "artifacts/export_formats.h"

#include "core/error.h"

namespace retort::artifacts {

ExportFormat gguf_export();        // export_gguf.cpp
ExportFormat gguf_lora_export();   // export_peft.cpp
ExportFormat hf_export();          // export_hf.cpp
ExportFormat checkpoint_export();  // export_checkpoint.cpp
ExportFormat peft_export();        // export_peft.cpp
// export_hf.cpp: in a layout of quantize/hf_packing.h
ExportFormat packed_export(const std::string& layout, std::string holds, bool activations = false);

const Registry<ExportFormat>& export_formats() {
  static const Registry<ExportFormat> table(
      "export format",
      {
          gguf_export(),
          hf_export(),
          packed_export("compressed-tensors", "a folder of the model's own codes, for vLLM and transformers",
                        true),
          packed_export("gptq", "the same in AutoGPTQ's layout"),
          packed_export("gptq_v2", "the same in its second version"),
          checkpoint_export(),
          peft_export(),
          gguf_lora_export(),
      });
  return table;
}

void check_card_place(const Path& out, const Path& /*source*/) {
  const Path card = out / "README.md";
  std::error_code none;
  check<IoError>(!std::filesystem::exists(card, none) || is_model_card(read_text(card)),
                 "{}: was not written by an export and is not replaced; move it away, or name another folder",
                 card.string());
}

std::vector<GridMisfit> grid_misfits(const ExportFormat& format, const quantize::QuantizeOptions& grids) {
  if (format.adapters) return {{"weights", format.noun + " holds adapters and no weight of a model"}};
  if (format.packs == Packs::kValues) return {};
  const std::string& weights = grids.weights.grid;
  if (format.packs == Packs::kMatrices && weights == "none") return {{"weights", "names no grid to pack"}};
  std::vector<GridMisfit> out;
  const auto ask = [&](const char* part, const std::string& grid) {
    if (grid == "none") return;
    const std::string why = format.grid_misfit(quantize::grids().at(grid));
    if (!why.empty()) out.push_back({part, why});
  };
  ask("weights", weights);
  if (format.packs == Packs::kMatrices) return out;
  ask("embedding", grids.embedding.grid);
  ask("head", grids.head.grid);
  return out;
}

}  // namespace retort::artifacts
