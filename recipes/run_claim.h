// Tests a recipe's claim: its shared stages once in DIR/shared, all others for every seed in DIR/seed-N,
// where links stand for the shared ones (finished stages are skipped, as in a run), then the figures and the
// bars:
//
//   DIR/claim.json  {"says", "seeds", "arms": {ARM: {FIGURE: [one a seed]}}, "bars": [], "machine", "date"}
//   DIR/claim.md    the same as two tables; also printed on rank 0
//
// A bar is judged on the mean over seeds of a paired quantity; the number of seeds that hold it alone is
// printed beside it. Collective. Throws DataError when a stage lacks a figure that the claim names. An arm
// whose numbers went wrong with a seed is in no table; claim.json has "failed": {ARM: [seeds]}, and a bar
// about it does not hold.
#pragma once

#include <map>

#include "formats/json.h"
#include "recipes/claim.h"
#include "recipes/pipeline.h"

namespace retort::recipes {

// kDone, kBarMissed, kNonFinite where an arm failed, or kPreempted when stopped.
ExitCode run_claim(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm, FileSystem& files,
                   Log& log, const std::atomic<bool>& stop);

// figures[arm][figure]: one value a seed.
using ArmFigures = std::map<std::string, std::map<std::string, std::vector<double>>>;

struct Verdict {
  std::vector<double> values;          // of the bar's quantity, one a seed
  double mean = 0.0, deviation = 0.0;  // deviation: of one seed, over n - 1; 0 for a single one
  bool holds = false;
  int64_t seeds_holding = 0;
};
Verdict judge(const BarOptions& bar, const ArmFigures& figures);

}  // namespace retort::recipes
