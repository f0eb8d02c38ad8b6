// Text from a model, kept in DIRECTORY/sample.txt.
#include "eval/generate.h"
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
    const std::vector<int32_t> prompt = tokenizer.encode(options.prompt);
    eval::SamplingOptions sampling = options.sampling;
    sampling.seed = seed;
    const std::vector<int32_t> ids = eval::generate(*model.decoder, prompt, sampling);
    context.files.make_directories(context.directory);
    const std::string text =
        fmt::format("--- {} ---\n{}{}\n", model.source, options.prompt, tokenizer.decode(ids));
    write_durably(context.files, context.directory / "sample.txt", text);
    outcome.result = {{"model", model.source}, {"generated", ids.size()}};
  });
  return outcome;
}

}  // namespace retort::launch
