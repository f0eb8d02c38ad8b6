// What a train stage would cost, by arithmetic on shapes (plan/): parameters, operations, bytes of a rank, communication,
// time. `retort plan` prints all of it and `retort check` a line. Nothing is read but shapes and sizes, and no weights are
// allocated. Throws ConfigError for a shape that does not hold together.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/json.h"
#include "plan/device.h"
#include "plan/fit.h"
#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/step_time.h"
#include "recipes/recipe.h"

namespace retort::recipes {

struct TrainPlan {
  std::string stage;
  plan::Device device;
  plan::Workload work;
  plan::Flops student;       // a token
  double teacher_flops = 0;  // a token, of the live ones
  int64_t width = 0, layers = 0;
  int64_t batch_tokens = 0;                   // of a step
  plan::Policy policy = plan::Policy::kNone;  // of parallel.shard
  int64_t steps = 0;                          // 0: epochs of a text that is not there yet

  double flops_a_token() const { return student.total() + teacher_flops; }
  plan::StepTime time() const;
};

// Of a train stage; nothing when only files that are not there yet know the shape of its model or teacher. `ranks` 0: as
// the stage says.
std::optional<TrainPlan> plan_train(const Recipe& recipe, const Stage& stage, int64_t ranks,
                                    const plan::Device& device);

std::string plan_text(const TrainPlan& plan);
formats::Json plan_json(const TrainPlan& plan);

// What `retort check` says of a train stage: steps, ranks, parameters, operations, memory, and the cost of its teacher.
std::string train_plan(const Recipe& recipe, const Stage& stage, int64_t ranks);

}  // namespace retort::recipes
