// What is in a file or directory.
#include "artifacts/identify.h"
#include "artifacts/inspect.h"
#include "distill/inspect_cache.h"
#include "launch/verbs.h"
#include "recipes/address.h"
#include "recipes/presets.h"

namespace retort::launch {

ExitCode inspect_verb(const InspectArguments& arguments) {
  const auto say = [](std::string_view line) { fmt::print("{}\n", line); };
  const auto preset = recipes::preset_of(arguments.path);
  const artifacts::Artifact found = artifacts::identify(arguments.path);
  const bool cache = found.kind == artifacts::Kind::kTeacherCache;
  check<ConfigError>(cache || (arguments.shards.empty() && arguments.tokenizer.empty()),
                     "{}: --shards and --tokenizer are for a teacher cache, and it is none", arguments.path);
  Log log;
  if (preset) artifacts::inspect_spec(recipes::preset_spec(*preset), say);
  if (cache) distill::inspect_cache(found.path, arguments.shards, arguments.tokenizer, say);
  if (!preset && !cache) artifacts::inspect(arguments.path, say, log);
  return ExitCode::kDone;
}

}  // namespace retort::launch
