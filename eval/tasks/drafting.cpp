// Speculative decoding of the model with a drafter: drafting.h has the figures.
#include "eval/drafting.h"

#include "eval/task.h"

namespace retort::eval {
namespace {

Figure figure(const Estimate& estimate) { return {estimate.value, estimate.standard_error, true}; }

}  // namespace

Task drafting_task() {
  return {
      .name = "drafting",
      .doc = "how much of what a drafter proposes the model accepts, and the tokens that a round of it gives",
      .figures = {"acceptance", "greedy_agreement", "tokens_per_round", "greedy_tokens_per_round",
                  "geometric_tokens_per_round"},
      .needs = {Needs::kText, Needs::kDrafter},
      .run = [](Evaluation& evaluation) -> Figures {
        const TaskInput& in = evaluation.input();
        const Drafting d =
            drafting(in.model, *in.drafter, *in.text, in.sequence, in.drafting, in.comm, in.limit);
        return {{"acceptance", figure(d.acceptance)},
                {"greedy_agreement", figure(d.agreement)},
                {"tokens_per_round", figure(d.tokens_per_round)},
                {"greedy_tokens_per_round", figure(d.greedy_tokens_per_round)},
                {"geometric_tokens_per_round", figure(geometric_tokens(d.acceptance, in.drafting.drafted))}};
      }};
}

}  // namespace retort::eval
