// Text files to token shards, in DIRECTORY/train and DIRECTORY/validation.
#include "data/prepare.h"
#include "launch/stages.h"
#include "launch/together.h"

namespace retort::launch {

StageOutcome prepare_stage(StageContext& context) {
  StageOutcome outcome;
  on_rank_zero(context.comm, [&] {
    data::PrepareOptions options = context.stage.prepare;
    options.text = context.stage.text(context.recipe.run);
    options.tokenizer = resolve_stage(options.tokenizer, context.run);
    options.threads = context.threads;
    const data::PrepareReport report =
        data::prepare(options, context.directory, context.stage.data.sequence, context.files, context.log);
    outcome.result = {{"train_tokens", report.train.tokens},
                      {"train_bytes", report.train.bytes},
                      {"validation_tokens", report.validation.tokens},
                      {"validation_bytes", report.validation.bytes}};
  });
  return outcome;
}

}  // namespace retort::launch
