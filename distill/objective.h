// Distillation as an Objective: a weighted list of losses on the student's rows beside the teacher's signal.
#pragma once

#include <memory>
#include <vector>

#include "distill/loss.h"
#include "distill/teacher.h"
#include "train/objective.h"

namespace retort::distill {

std::unique_ptr<train::Objective> make_distillation(std::unique_ptr<Teacher> teacher,
                                                    const std::vector<LossOptions>& losses);

}  // namespace retort::distill
