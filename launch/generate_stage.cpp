// Text from a model, kept in DIRECTORY/sample.txt.
#include "eval/complete.h"
#include "launch/stages.h"
#include "launch/together.h"

namespace retort::launch {

StageOutcome generate_stage(StageContext& context) {
  StageOutcome outcome;
  on_rank_zero(context.comm, [&] {
    const recipes::GenerateOptions& options = context.stage.generate;
    const auto seed = static_cast<uint64_t>(context.recipe.run.seed);
    const OpenedModel model = open_model(context.stage.model.from, context.run, seed, context.log);
    const data::Tokenizer& tokenizer = model.need_tokenizer();
    eval::SamplingOptions sampling = options.sampling;
    sampling.seed = seed;
    const eval::Completion out =
        eval::complete(*model.decoder, tokenizer, {options.prompt}, sampling, {}, model.ends()).front();
    context.files.make_directories(context.directory);
    const std::string text = fmt::format("--- {} ---\n{}{}\n", model.source, options.prompt, out.text);
    write_durably(context.files, context.directory / "sample.txt", text);
    outcome.result = {{"model", model.source}, {"generated", out.tokens.ids.size()}};
  });
  return outcome;
}

}  // namespace retort::launch
