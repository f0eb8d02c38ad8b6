// What an evaluate stage measures, and on what. A value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"

namespace retort::recipes {

struct EvaluateOptions {
  std::vector<std::string> tasks = {"bits_per_byte", "perplexity"};
  std::string text;  // a file, or a directory of token shards; "": data.validation
  int64_t limit = 0;
  void describe(Section& s);
};

}  // namespace retort::recipes
