// Distillation as an Objective: sum_i weight_i(step) * loss_i over the student's rows beside the teacher's
// signal. A row counts where its label does (-100: no loss, for every term). Parts are named by their fn; the
// second of one fn is "forward_kl_2". The teacher runs only when a loss needs it. Losses on hidden states
// declare their projections among the student's parameters: make the objective before the optimizer and
// before bind_working. Where vocabularies differ in size, the ids below both are compared: what is beyond is
// padding, which the caller has made sure of. make_distillation throws ConfigError: no losses, an unknown fn,
// a loss without its teacher, a teacher that does not say what a loss reads. A call throws NonFiniteError
// naming the token at which a teacher's hidden states are not finite.
#pragma once

#include <memory>
#include <vector>

#include "distill/loss.h"
#include "distill/teacher.h"
#include "train/objective.h"

namespace retort::distill {

// `seed`: of draws and projections.
std::unique_ptr<train::Objective> make_distillation(std::unique_ptr<Teacher> teacher,
                                                    const std::vector<LossOptions>& losses,
                                                    models::Model& student, uint64_t seed = 0);

}  // namespace retort::distill
