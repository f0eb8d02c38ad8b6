// Bits for each byte of the text, which compare across vocabularies. The bytes of a token are taken as a fact of
// the text, without an error.
#include <numbers>

#include "core/error.h"
#include "eval/task.h"

namespace retort::eval {

Task bits_per_byte() {
  return {.name = "bits_per_byte",
          .doc = "bits that the model needs for each byte of a text; comparable across vocabularies",
          .figures = {"bits_per_byte"},
          .needs = {Needs::kText},
          .run = [](Evaluation& evaluation) -> Figures {
            const TextScore& score = evaluation.score();
            check<ConfigError>(score.bytes > 0,
                               "[eval] task bits_per_byte needs a text whose every token counts, and this "
                               "one has a loss mask: take perplexity");
            const double bytes_per_token =
                static_cast<double>(score.bytes) / static_cast<double>(score.tokens);
            return {{"bits_per_byte",
                     {score.bits_per_byte(), score.error / std::numbers::ln2 / bytes_per_token}}};
          }};
}

}  // namespace retort::eval
