// How far the model is from the one that it was made from: divergence.h has the figures.
#include "eval/divergence.h"

#include "eval/task.h"

namespace retort::eval {

Task divergence_task() {
  return {.name = "divergence",
          .doc =
              "KL from a reference's predictions to the model's, and how often both have the same likeliest "
              "token",
          .figures = {"kl", "agreement"},
          .needs = {Needs::kText, Needs::kReference},
          .run = [](Evaluation& evaluation) -> Figures {
            const TaskInput& in = evaluation.input();
            const Divergence d =
                divergence(*in.reference, in.model, *in.text, in.sequence, in.comm, in.limit);
            return {{"kl", {d.kl.value, d.kl.standard_error, false}},
                    {"agreement", {d.agreement.value, d.agreement.standard_error, true}}};
          }};
}

}  // namespace retort::eval
