#include "artifacts/model_shape.h"

#include "artifacts/identify.h"
#include "artifacts/model_facts.h"
#include "core/error.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/llama2c.h"
#include "train/checkpoint.h"

namespace retort::artifacts {
namespace {

// Without the digests' check, which reads all of it.
models::DecoderSpec of_checkpoint(const Path& directory) {
  const Path path = directory / "manifest.json";
  const formats::Json json = formats::read_json(path);
  const auto manifest = json.find("manifest");
  check<DataError>(manifest != json.end() && manifest->is_object() && manifest->contains("extra"),
                   "{}: is no manifest of a checkpoint", path.string());
  return read_model_facts(manifest->at("extra"), path.string()).spec;
}

}  // namespace

std::optional<models::DecoderSpec> model_shape(const Path& path) {
  Artifact found = identify(path);
  if (found.kind == Kind::kRun && found.models.size() == 1) found = identify(found.models.front());
  switch (found.kind) {
    case Kind::kCheckpoint:
      return of_checkpoint(found.path);
    case Kind::kCheckpoints:
      return of_checkpoint(train::list_checkpoints(found.path).front());
    case Kind::kHfFolder:
      return models::hf_spec(found.path);
    case Kind::kGguf:
      return models::gguf_spec(found.path);
    case Kind::kLlama2c:
      return models::llama2c_spec(found.path);
    default:
      return std::nullopt;
  }
}

}  // namespace retort::artifacts
