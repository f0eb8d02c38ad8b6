// Steps of a run whose time is told (retort run --profile N): the third of rank 0's and on, since two make
// what later ones reuse. They run without graphs, whose operations nobody sees (train/micro_graph.h). The log
// gets a table of where the time went and one of what holds memory, and DIRECTORY/profile.json every call
// (train/profile.h). A run that is too short for one is warned of it, at its start where that is known.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "train/holders.h"
#include "train/profile.h"
#include "train/trainer.h"

namespace retort::train {

class ProfiledSteps {
 public:
  // parts.profile steps of those that are left; none on other ranks. `holders`: what holds memory now. What it is given
  // outlives it.
  ProfiledSteps(const TrainerParts& parts, TrainStep& step, std::function<std::vector<Holder>()> holders,
                int64_t left);
  void begin_step();
  void end_step();  // tells, after the last one
  void end_run();   // tells of those so far, where a run ends before the last one

 private:
  void tell();
  void warn_of_none(int64_t steps, const char* how) const;
  const TrainerParts& parts_;
  TrainStep& step_;
  std::function<std::vector<Holder>()> holders_;
  int64_t wanted_, taken_ = 0;
  std::unique_ptr<Profile> profile_;  // of the steps that are under way
};

}  // namespace retort::train
