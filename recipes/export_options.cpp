#include "recipes/export_options.h"

#include "formats/ggml_blocks.h"

namespace retort::recipes {
namespace {
std::vector<std::string> types_and(std::string first) {
  std::vector<std::string> out = formats::written_ggml_types();
  out.insert(out.begin(), std::move(first));
  return out;
}
}  // namespace
void ExportOptions::describe(Section& s) {
  s.field("format", format,
          "gguf: a file; hf: a folder of values; compressed-tensors, gptq: a folder of the model's own codes",
          one_of({"gguf", "hf", "compressed-tensors", "gptq", "gptq_v2"}));
  s.field("type", type, "of matrices; own: the grids of the model's quantize section, f32 without one",
          one_of(types_and("own")));
  s.field("embedding_type", embedding_type, "of the token embedding and the head, when type is not own",
          one_of(types_and("same")));
  s.field("activations", activations,
          "compressed-tensors: whoever loads it rounds activations to 8 bits too, per token");
  s.field("evaluate", evaluate, "score the validation text with the file as read back");
}
std::string export_misfit(const ExportOptions& options, const models::Parameters& parameters) {
  if (options.format != "gguf" || options.type == "own") return "";
  for (const models::Parameter& p : parameters.unique()) {
    const bool table = p.role == models::Role::kEmbedding || p.role == models::Role::kHead;
    if (!table && p.role != models::Role::kMatrix) continue;
    const bool other = table && options.embedding_type != "same";
    const auto& type = formats::ggml_type_named(other ? options.embedding_type : options.type);
    const int64_t row = p.master.size(-1);
    if (row % type.block != 0)
      return fmt::format("{} has rows of {}, and {} wants a multiple of {}; {} takes them", p.name, row,
                         type.name, type.block, row % 32 == 0 ? "q8_0" : "f16");
  }
  return "";
}
}  // namespace retort::recipes
