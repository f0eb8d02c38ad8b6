// A claim: the stages of a recipe are its arms, run once for every seed, and its bars say what must come out.
// Arms of one seed see the same data in the same order, so a bar is judged on paired figures. Values; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"

namespace retort::recipes {

// One statement about the arms: `of` the figures of arm and against, per seed, the mean over seeds `is` the
// value.
struct BarOptions {
  std::string says, arm, against, reference, figure = "bits_per_byte", of = "difference", is = "at_most";
  double value = 0.0;
  void describe(Section& s);
};

struct ClaimOptions {
  std::string says;
  std::vector<int64_t> seeds = {11, 12, 13};
  std::vector<std::string> shared;   // stages that are no seed's own
  std::vector<std::string> arms;     // rows of the table; empty: every stage that has the first figure
  std::vector<std::string> figures;  // its columns
  std::vector<BarOptions> bars;
  ClaimOptions();
  void describe(Section& s);
};

}  // namespace retort::recipes
