// What a train stage's keys must obey together.
#pragma once

#include "recipes/stage_check.h"

namespace retort::recipes {

void check_train_stage(StageCheck& check);

}  // namespace retort::recipes
