// The teachers of a train stage: models and caches that its recipe names, opened and held against the text
// that the student learns from, before the first step.
//
//   live     a MODEL beside the student, its products in its own precision. Ranks that divide the student's weights
//            divide its too, from the start: each reads the rows that it keeps
//   self     a copy of the weights that the stage begins with, never quantized. A stage that is resumed
//            begins with the same ones: they follow from model.from, model.init or the seed
//   cached   labels of a capture stage: of this text, whole (every digest is checked, ranks share the work),
//            and of distill.teacher.model where that is named
//
// Throws ConfigError for what does not fit together, DataError for files that do not hold.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/batch_stream.h"
#include "distill/teacher.h"
#include "models/stored_model.h"
#include "recipes/distill_options.h"
#include "recipes/stage_context.h"

namespace retort::recipes {

// A model that is to read `text`. ConfigError, with the first tokens that differ, unless its tokenizer is the
// text's where it is known, and its vocabulary large enough. `key` names the model in errors.
artifacts::OpenedModel open_teacher(const std::string& key, const std::string& address,
                                    const StageContext& context, const data::TokenShards& text, Log& log);

// What the stage's objective learns from; no teacher when no loss needs a teacher. Collective. `student` has the
// weights that the stage begins with, or `values` has them; `sources` are those of its batches.
struct MadeTeacher {
  std::unique_ptr<distill::Teacher> teacher;
  uint64_t bytes = 0;  // of models that this rank has whole
};
MadeTeacher make_teacher(const StageContext& context, const models::Model& student,
                         const models::ParameterValues& values, const std::vector<data::Source>& sources,
                         comm::Comm& comm, Log& log);

// The model as it is now, frozen, as what preferences are measured from. Collective. What it borrows (adapters over a base)
// it has in common with `student`; precision is the student's, so that the two agree bit for bit until a step is made. With
// `values` no rank has it whole, and ranks ask it together (distill/divided_teacher.h).
std::unique_ptr<distill::Teacher> make_reference(const StageContext& context, const models::Model& student,
                                                 const models::ParameterValues& values,
                                                 at::ScalarType precision, comm::Comm& comm);

}  // namespace retort::recipes
