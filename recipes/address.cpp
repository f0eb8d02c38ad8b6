#include "recipes/address.h"

#include "core/error.h"

namespace retort::recipes {
namespace {

std::optional<std::string> after(const std::string& address, std::string_view prefix) {
  if (!address.starts_with(prefix)) return std::nullopt;
  return address.substr(prefix.size());
}

}  // namespace

std::optional<std::string> stage_of(const std::string& address) { return after(address, "stage:"); }
std::optional<std::string> preset_of(const std::string& address) { return after(address, "preset:"); }

Path path_of(const std::string& address, const Path& run) {
  const auto stage = stage_of(address);
  if (!stage) return address;
  check<ConfigError>(!run.empty(), "{}: a stage is known within its recipe only; name its directory",
                     address);
  return run / *stage;
}

}  // namespace retort::recipes
