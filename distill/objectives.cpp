#include "distill/objectives.h"

#include "distill/objective.h"
#include "distill/preference.h"

namespace retort::distill {
namespace {

std::unique_ptr<train::Objective> cross_entropy_of(ObjectiveInput input) {
  return train::make_cross_entropy(input.noise);
}

std::unique_ptr<train::Objective> distillation_of(ObjectiveInput input) {
  return make_distillation(std::move(input.teacher), input.losses, input.model, input.seed, input.noise);
}

std::unique_ptr<train::Objective> preference_of(ObjectiveInput input) {
  check<ConfigError>(input.noise.alpha == 0.0, "[preference] embeddings take no noise, got alpha {}",
                     input.noise.alpha);
  if (input.teacher) input.reference = make_live_reference(std::move(input.teacher));
  return make_preference(std::move(input.reference), input.preference);
}

}  // namespace

const Registry<ObjectiveSpec>& objectives() {
  static const Registry<ObjectiveSpec> table(
      "objective",
      {{"cross_entropy", "-log p(label), the mean over labels", train::labels(), data::ShardKind::kText,
        cross_entropy_of},
       {"distillation", "a weighted sum of losses against a teacher's signal, the mean over labels",
        train::labels(), data::ShardKind::kText, distillation_of},
       {"pairs", "a loss on a chosen and a rejected answer, the mean over pairs", pairs_of_rows(),
        data::ShardKind::kPairs, preference_of},
       {"rated", "a loss on an answer that is called good or bad, the mean over answers", rated_rows(),
        data::ShardKind::kRated, preference_of}});
  return table;
}

}  // namespace retort::distill
