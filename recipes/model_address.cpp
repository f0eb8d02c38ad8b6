#include "recipes/model_address.h"

#include "artifacts/model_shape.h"
#include "core/error.h"
#include "recipes/address.h"
#include "recipes/presets.h"

namespace retort::recipes {

namespace {

Path existing(const std::string& address, const Path& run) {
  Path path = path_of(address, run);
  check<IoError>(std::filesystem::exists(path),
                 "{}: no such model (a checkpoint, run or HF directory, a .gguf file, or preset:NAME)",
                 address);
  return path;
}

}  // namespace

artifacts::OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log,
                                  bool strict) {
  if (const auto preset = preset_of(address))
    return artifacts::new_model(preset_spec(*preset), seed, address);
  return artifacts::open_model(existing(address, run), log, strict);
}

artifacts::OpenedStored open_stored(const std::string& address, const Path& run, uint64_t seed, Log& log,
                                    bool strict) {
  if (const auto preset = preset_of(address))
    return artifacts::new_stored(preset_spec(*preset), seed, address);
  return artifacts::open_stored(existing(address, run), log, strict);
}

std::optional<models::DecoderSpec> model_shape(const std::string& address, const Path& run) {
  if (const auto preset = preset_of(address)) return preset_spec(*preset);
  if (address.empty() || (run.empty() && stage_of(address))) return std::nullopt;
  return artifacts::model_shape(path_of(address, run));
}

}  // namespace retort::recipes
