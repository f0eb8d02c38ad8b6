// Distillation as an Objective: sum_i weight_i(step) * loss_i over the student's rows and the teacher's
// signal. Noise on embeddings is the student's alone. A row counts where it has a label, for every loss. Parts are named
// by their fn; the second of one fn is "forward_kl_2". The teacher runs only when a loss needs it. The projections of losses on layers are
// the objective's own (learned()). Where vocabularies differ in size, the ids below both are
// compared: the caller has checked that the others are padding. make_distillation throws ConfigError for
// losses that do not fit the teacher; a call throws NonFiniteError, naming the token, for hidden states of
// the teacher that are not finite.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "distill/loss.h"
#include "distill/teacher.h"
#include "train/embedding_noise.h"
#include "train/objective.h"

namespace retort::distill {

// `seed`: of draws and projections.
std::unique_ptr<train::Objective> make_distillation(std::unique_ptr<Teacher> teacher,
                                                    const std::vector<LossOptions>& losses,
                                                    const models::Model& student, uint64_t seed = 0,
                                                    const train::EmbeddingNoise& noise = {});

// Why a loss cannot learn from such signals of a teacher, of which so many layers can be compared with a student's; ""
// when it can.
std::string signal_misfit(const LossOptions& loss, const SignalKind& kind, int64_t layers);

// Why micro-batches of these losses cannot be repeated as graphs (train/objective.h), whatever their teacher says.
std::string not_repeatable(const std::vector<LossOptions>& losses, const train::EmbeddingNoise& noise);

}  // namespace retort::distill
