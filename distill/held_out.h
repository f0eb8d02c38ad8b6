// A preference objective on answers that are not trained on: the mean loss over all of a source's pairs, or rated
// answers, and its figures (docs/preferences.md, "Held-out answers"). No gradient. Batches follow from the source alone
// and are added up in their order, so that every number of ranks gets the same bits.
#pragma once

#include <map>
#include <string>

#include "distill/reference.h"
#include "train/objective.h"

namespace retort::distill {

struct HeldOutScore {
  double loss = 0.0;
  int64_t count = 0;                    // pairs, or rows
  std::map<std::string, double> parts;  // Objective::figures() by Objective::part_names()
};

// Collective. The model is judged on its working weights, as its reference is.
HeldOutScore score_held_out(train::Objective& objective, models::Model& model, const AnswerBatches& rows,
                            const at::Device& device, comm::Comm& comm);

}  // namespace retort::distill
