// A GGUF, for llama.cpp: codes of the model's own grids where they are ggml's, or values in one of its types.
#include "artifacts/export_formats.h"
#include "core/error.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "formats/ggml_blocks.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "quantize/hf_packing.h"

namespace retort::artifacts {
namespace {

models::Packer packer_of(const ExportSource& source, const ExportOptions& options) {
  if (options.type == "own" && source.grids != nullptr)
    return [grids = source.grids](const models::Parameter& p) { return grids->pack(p); };
  const auto type = formats::ggml_type_named(options.type == "own" ? "f32" : options.type).type;
  const auto embedding =
      options.embedding_type == "same" ? type : formats::ggml_type_named(options.embedding_type).type;
  return [&map = source.map, type, embedding](const models::Parameter& p) {
    const bool table = p.role == models::Role::kEmbedding || p.role == models::Role::kHead;
    const bool matrix = table || p.role == models::Role::kMatrix;
    const auto chosen = table ? embedding : matrix ? type : formats::GgmlType::F32;
    return formats::pack(chosen, map.apply(p, p.master).contiguous());
  };
}

// llama.cpp loads no model without a kind of vocabulary; this one has no tokens (tests/clients/no_vocabulary_check.py).
const formats::GgufMetadata kNoVocabulary = {{"tokenizer.ggml.model", std::string("no_vocab")}};

void write(const ExportSource& source, const ExportOptions& options, const Path& out, FileSystem& files) {
  auto tokenizer = source.tokenizer ? source.tokenizer->gguf_metadata() : kNoVocabulary;
  tokenizer = data::padded(std::move(tokenizer), source.model.tokens());
  tokenizer = models::with_end_tokens(std::move(tokenizer), source.ends);
  auto metadata = origin_keys(source.origin);
  metadata.insert(metadata.end(), tokenizer.begin(), tokenizer.end());
  models::save_gguf(files, out, source.model, packer_of(source, options), metadata, "retort");
}

std::string grid_misfit(const quantize::Grid& grid) {
  if (grid.ggml) return "";
  const bool compressed = quantize::layout_misfit("compressed-tensors", grid).empty();
  return fmt::format("a GGUF cannot hold grid {}; format {}", grid.name,
                     compressed ? "compressed-tensors can" : "hf holds its values");
}

std::string architecture_misfit(const models::DecoderSpec& spec) {
  const models::Family& family = models::families().at(spec.family);
  if (family.gguf_architecture.empty())
    return fmt::format(
        "a {} model cannot be written as a GGUF: llama.cpp has no such architecture; it stays a checkpoint "
        "of retort",
        spec.family);
  try {
    family.gguf_metadata(spec);  // says what its keys cannot
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string tokenizer_misfit(const data::Tokenizer& tokenizer) {
  try {
    tokenizer.gguf_metadata();  // says what its keys cannot
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

ExportFormat gguf_export() {
  return {.name = "gguf",
          .noun = "a GGUF",
          .holds = "a file for llama.cpp",
          .types = formats::written_ggml_types(),
          .file = "model.gguf",
          .packs = Packs::kEverything,
          .without_tokenizer =
              "llama.cpp's library takes token ids for it (llama_decode); its server and tools "
              "want text, and abort at the first prompt",
          .grid_misfit = grid_misfit,
          .architecture_misfit = architecture_misfit,
          .tokenizer_misfit = tokenizer_misfit,
          .write = write};
}

}  // namespace retort::artifacts
