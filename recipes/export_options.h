// TEMPORARY until the artifacts room is merged.
#pragma once
#include <string>
#include "core/section.h"
#include "models/parameters.h"
namespace retort::recipes {
struct ExportOptions {
  std::string format = "gguf", type = "own", embedding_type = "same";
  bool activations = false, evaluate = false;
  void describe(Section& s);
};
std::string export_misfit(const ExportOptions& options, const models::Parameters& parameters);
}  // namespace retort::recipes
