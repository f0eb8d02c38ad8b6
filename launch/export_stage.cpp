// A model as a GGUF file (DIRECTORY/model.gguf) or as a Hugging Face folder (DIRECTORY itself); on request
// scored as read back from the file.
#include "artifacts/export_model.h"
#include "artifacts/text_shards.h"
#include "launch/stages.h"
#include "launch/together.h"

namespace retort::launch {

StageOutcome export_stage(StageContext& context) {
  const recipes::Stage& s = context.stage;
  const Path out = s.exporting.format == "gguf" ? context.directory / "model.gguf" : context.directory;
  StageOutcome outcome;
  on_rank_zero(context.comm, [&] {
    const OpenedModel model =
        open_model(s.model.from, context.run, static_cast<uint64_t>(context.recipe.run.seed), context.log);
    if (s.exporting.evaluate)
      check_tokenizer(model, *open_shards(context, s.data.validation, "validation"), "data.validation");
    if (s.exporting.format == "gguf") context.files.make_directories(context.directory);
    const uint64_t bytes = export_model(model, s.exporting, out, context.files);
    const Spent before = spent_before(context, s.model.from);
    outcome.result = parameter_counts(*model.decoder);  // what was trained; the file may hold copies
    outcome.result.update({{"file_bytes", bytes}, {"tokens", before.tokens}, {"seconds", before.seconds}});
    context.log.info("{}: {}", out.string(), format_bytes(bytes));
  });
  if (s.exporting.evaluate) {
    OpenedModel back;
    together(context.comm, [&] { back = open_model(out.string(), context.run, 0, context.log); });
    outcome.result.update(evaluate(context, *back.decoder, back.map(), context.comm));
  }
  return outcome;
}

}  // namespace retort::launch
