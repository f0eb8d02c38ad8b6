// What a generate stage continues, and how. A value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/sampling.h"

namespace retort::recipes {

struct GenerateOptions {
  std::vector<std::string> prompt = {"In the beginning"};
  std::vector<int64_t> ids = {};
  eval::SamplingOptions sampling = {};  // its seed is run.seed
  std::string precision = "fp32";
  bool json = false;
  void describe(Section& s);
};

}  // namespace retort::recipes
