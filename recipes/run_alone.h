// One stage by itself, outside of a run: what a verb such as `retort quantize` does. It is checked as a recipe of
// one stage is, writes where it is told to, prints as it goes, and leaves no marks of a run. One process.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "formats/json.h"
#include "recipes/recipe.h"

namespace retort::recipes {

struct AloneOptions {
  RunOptions run = {};          // seed, threads and text
  Path directory = {};          // of a stage that writes a folder
  std::vector<Path> outs = {};  // of a stage that writes files
  // How an error names a key of the recipe: "data.validation" -> "--text".
  std::function<std::string(const std::string& key)> name_of = {};
  std::function<bool(std::string_view)> print = {};  // false when nobody reads any more
};

// The stage's figures. ConfigError with one line a problem of its keys; files that are missing or wrong are the
// stage's to find, with its own errors and exit codes.
formats::Json run_alone(const Stage& stage, const AloneOptions& options, FileSystem& files, Log& log);

}  // namespace retort::recipes
