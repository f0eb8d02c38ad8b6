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
  std::string data;     // the folder of described tasks' files
  std::string against;  // a second MODEL, compared with the first
  std::string reference;  // the MODEL that it was made from; "": none
  std::string drafter;    // a MODEL that drafts for it; "": none
  int64_t drafted = 4;  // tokens a round
  double temperature = 1;
  int64_t documents = 0;  // of each described task; 0: all
  int64_t shots = -1;     // -1: as each description says
  std::string chat;       // "model", or a template's address; "": plain prompts
  int64_t max_length = 0;
  int64_t bootstrap = 100000;
  void describe(Section& s);
};

}  // namespace retort::recipes
