#include "launch/model_address.h"

#include "artifacts/model_shape.h"
#include "core/error.h"
#include "recipes/presets.h"
#include "recipes/recipe.h"

namespace retort::launch {

std::string resolve_stage(const std::string& address, const Path& run) {
  const auto stage = recipes::stage_of(address);
  if (!stage) return address;
  check<ConfigError>(!run.empty(), "{}: a stage is known within its recipe only; name its directory",
                     address);
  return (run / *stage).string();
}

OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log) {
  if (const auto preset = recipes::preset_of(address))
    return artifacts::new_model(recipes::preset_spec(*preset), seed, address);
  const Path path = resolve_stage(address, run);
  check<IoError>(std::filesystem::exists(path),
                 "{}: no such model (a checkpoint, run or HF directory, a .gguf file, or preset:NAME)",
                 address);
  return artifacts::open_model(path, log);
}

std::optional<models::DecoderSpec> model_shape(const std::string& address, const Path& run) {
  if (const auto preset = recipes::preset_of(address)) return recipes::preset_spec(*preset);
  if (address.empty() || (run.empty() && recipes::stage_of(address))) return std::nullopt;
  return artifacts::model_shape(resolve_stage(address, run));
}

}  // namespace retort::launch
