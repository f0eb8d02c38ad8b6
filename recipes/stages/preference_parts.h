// What a preference stage has beside its objective: the reference that it compares with, live or kept in the stage's
// directory (preference.precompute), and the answers that it is validated on where data.validation holds some.
#pragma once

#include <memory>

#include "data/batch_stream.h"
#include "distill/held_out.h"
#include "distill/reference.h"
#include "models/stored_model.h"
#include "recipes/stage_context.h"

namespace retort::recipes {

// The held-out answers; nullptr where data.validation holds a text, or is empty.
std::unique_ptr<distill::AnswerBatches> held_out_rows(const StageContext& context,
                                                      const models::Model& model);

// `held_out`: nullptr where there is nothing to validate on, or the live one serves.
struct References {
  std::unique_ptr<distill::Reference> training, held_out;
};
// Collective. `student` has the weights that the stage begins with, on the host, or `values` has them, and then ranks ask the
// references together; `precision` is that of its products.
References make_references(const StageContext& context, const models::Model& student,
                           const models::ParameterValues& values, at::ScalarType precision,
                           const data::BatchStream& stream, comm::Comm& comm, Log& log);

// {"preference_loss", of pairs "preference_accuracy", "preference_margin"}
formats::Json held_out_figures(const distill::HeldOutScore& score);

}  // namespace retort::recipes
