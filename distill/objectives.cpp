#include "distill/objectives.h"

#include "distill/objective.h"

namespace retort::distill {
namespace {

std::unique_ptr<train::Objective> cross_entropy_of(ObjectiveInput) { return train::make_cross_entropy(); }

std::unique_ptr<train::Objective> distillation_of(ObjectiveInput input) {
  return make_distillation(std::move(input.teacher), input.losses, input.model, input.seed);
}

}  // namespace

const Registry<ObjectiveSpec>& objectives() {
  static const Registry<ObjectiveSpec> table(
      "objective",
      {{"cross_entropy", "-log p(label), the mean over labels", train::labels(), "rows", cross_entropy_of},
       {"distillation", "a weighted sum of losses against a teacher's signal, the mean over labels",
        train::labels(), "rows", distillation_of}});
  return table;
}

}  // namespace retort::distill
