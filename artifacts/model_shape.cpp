#include "artifacts/model_shape.h"

#include "artifacts/identify.h"
#include "artifacts/model_facts.h"
#include "artifacts/open_model.h"
#include "core/error.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/llama2c.h"
#include "train/checkpoint.h"

namespace retort::artifacts {
namespace {

// Without the digests' check, which reads all of it.
ModelFacts facts_of(const Path& directory) {
  const Path path = directory / "manifest.json";
  const formats::Json json = formats::read_json(path);
  const auto manifest = json.find("manifest");
  check<DataError>(manifest != json.end() && manifest->is_object() && manifest->contains("extra"),
                   "{}: is no manifest of a checkpoint", path.string());
  return read_model_facts(manifest->at("extra"), path.string());
}

// A run's only model, and of several checkpoints the one that is the model.
Artifact one_model(const Path& path) {
  Artifact found = identify(path);
  if (found.kind == Kind::kRun && found.models.size() == 1) found = identify(found.models.front());
  if (found.kind != Kind::kCheckpoints) return found;
  return {Kind::kCheckpoint, train::model_checkpoint(found.path), {}, ""};
}

// The model below an adapter's folder; nothing where that is an adapter too, which is not opened.
std::optional<Path> base_below(const Path& folder) {
  Path base = peft_base(folder, models::read_peft_config(folder));
  if (identify(base).kind == Kind::kPeft) return std::nullopt;
  return base;
}

// Bytes as tokens, in another file's words.
bool is_bytes(const data::Tokenizer& tokenizer) {
  if (tokenizer.vocabulary() != 256) return false;
  for (int32_t id = 0; id < 256; ++id)
    if (tokenizer.token_bytes(id) != std::string(1, static_cast<char>(id))) return false;
  return true;
}

}  // namespace

std::optional<models::DecoderSpec> model_shape(const Path& path) {
  const Artifact found = one_model(path);
  switch (found.kind) {
    case Kind::kCheckpoint:
      return facts_of(found.path).spec;
    case Kind::kHfFolder:
      return models::hf_spec(found.path);
    case Kind::kPeft: {
      const auto base = base_below(found.path);
      return base ? model_shape(*base) : std::nullopt;
    }
    case Kind::kGguf:
      return models::gguf_spec(found.path);
    case Kind::kLlama2c:
      return models::llama2c_spec(found.path);
    default:
      return std::nullopt;
  }
}

std::unique_ptr<data::Tokenizer> foreign_tokenizer(const Path& path) {
  auto tokenizer = data::open_tokenizer(path);
  return is_bytes(*tokenizer) ? data::make_byte_tokenizer() : std::move(tokenizer);
}

std::unique_ptr<data::Tokenizer> model_tokenizer(const Path& path) {
  const Artifact found = one_model(path);
  if (found.kind == Kind::kCheckpoint) {
    const auto name = facts_of(found.path).tokenizer;
    return name ? data::copied_tokenizer(*name, found.path) : nullptr;
  }
  if (found.kind == Kind::kPeft) {
    const auto base = base_below(found.path);
    return base ? model_tokenizer(*base) : nullptr;
  }
  if (found.kind != Kind::kHfFolder && found.kind != Kind::kGguf) return nullptr;
  try {
    return foreign_tokenizer(found.path);
  } catch (const Error&) {
    return nullptr;  // open_model() warns of it
  }
}

std::unique_ptr<data::Tokenizer> new_tokenizer(const models::DecoderSpec& spec) {
  return spec.vocabulary == 256 ? data::make_byte_tokenizer() : nullptr;
}

std::optional<models::AdapterOptions> model_adapters(const Path& path) {
  const Artifact found = one_model(path);
  if (found.kind == Kind::kPeft) return models::read_peft_config(found.path).options;
  if (found.kind != Kind::kCheckpoint) return std::nullopt;
  const auto adapters = facts_of(found.path).adapters;
  return adapters ? std::optional(adapters->options) : std::nullopt;
}

}  // namespace retort::artifacts
