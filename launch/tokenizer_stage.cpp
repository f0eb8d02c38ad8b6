// A vocabulary out of the run's text: DIRECTORY/tokenizer.json, which prepare stages name as stage:NAME.
#include "data/tokenizers/bpe_training.h"
#include "launch/stages.h"
#include "launch/together.h"

namespace retort::launch {

StageOutcome tokenizer_stage(StageContext& context) {
  StageOutcome outcome;
  on_rank_zero(context.comm, [&] {
    data::BpeTrainingOptions options = context.stage.tokenizer;
    options.threads = context.threads;
    const auto tokenizer = data::train_tokenizer(context.stage.text(context.recipe.run), context.directory,
                                                 options, context.files, context.log);
    outcome.result = {{"vocabulary", tokenizer->vocabulary()}, {"fingerprint", tokenizer->fingerprint()}};
  });
  return outcome;
}

}  // namespace retort::launch
