#include "launch/model_shape.h"

#include <algorithm>

#include "core/error.h"
#include "formats/gguf.h"
#include "formats/json.h"
#include "launch/model_address.h"
#include "models/family.h"
#include "models/spec_json.h"
#include "recipes/address.h"
#include "recipes/presets.h"
#include "train/checkpoint.h"

namespace retort::launch {
namespace {

namespace fs = std::filesystem;
using Shape = std::optional<models::DecoderSpec>;

Shape of_checkpoint(const Path& directory) {
  const Path path = directory / "manifest.json";
  const formats::Json json = formats::read_json(path);
  const auto manifest = json.find("manifest");
  const auto extra = manifest == json.end() ? json.end() : manifest->find("extra");
  if (manifest == json.end() || extra == manifest->end() || !extra->contains("model")) return std::nullopt;
  return models::from_json(extra->at("model"), path.string());
}

Shape of_hf_folder(const Path& directory) {
  const Path path = directory / "config.json";
  const formats::Json config = formats::read_json(path);
  const std::string type = formats::json_text(config, "model_type", path.string());
  for (const models::Family& family : models::families())
    if (std::find(family.hf_model_types.begin(), family.hf_model_types.end(), type) !=
        family.hf_model_types.end())
      return family.spec_from_hf(config, path.string());
  return std::nullopt;
}

Shape of_gguf(const Path& path) {
  const formats::GgufFile file(path);
  const formats::GgufValue* value = file.find("general.architecture");
  const auto* name = value == nullptr ? nullptr : std::get_if<std::string>(value);
  for (const models::Family& family : models::families())
    if (name != nullptr && family.gguf_architecture == *name) return family.spec_from_gguf(file);
  return std::nullopt;
}

}  // namespace

Shape model_shape(const std::string& address, const Path& run) {
  if (const auto preset = recipes::preset_of(address)) return recipes::preset_spec(*preset);
  if (address.empty() || (run.empty() && recipes::stage_of(address))) return std::nullopt;
  const Path path = resolve_stage(address, run);
  if (path.extension() == ".gguf" && fs::is_regular_file(path)) return of_gguf(path);
  if (!fs::is_directory(path)) return std::nullopt;
  if (fs::exists(path / "manifest.json")) return of_checkpoint(path);
  if (fs::exists(path / "config.json")) return of_hf_folder(path);
  if (fs::exists(path / "model.gguf")) return of_gguf(path / "model.gguf");
  const auto checkpoints = train::list_checkpoints(path / "checkpoints");
  return checkpoints.empty() ? std::nullopt : of_checkpoint(checkpoints.front());
}

}  // namespace retort::launch
