// exp(nats per token). A function of an estimate has the error of the estimate times its slope (delta
// method).
#include "eval/task.h"

namespace retort::eval {

Task perplexity() {
  return {.name = "perplexity",
          .doc = "how surprised the model is by a text: nats a token, and their exponential",
          .figures = {"nats_per_token", "perplexity"},
          .needs = {Needs::kText},
          .run = [](Evaluation& evaluation) -> Figures {
            const TextScore& score = evaluation.score();
            return {{"nats_per_token", {score.nats_per_token(), score.error}},
                    {"perplexity", {score.perplexity(), score.perplexity() * score.error}}};
          }};
}

}  // namespace retort::eval
