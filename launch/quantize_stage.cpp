// Round-to-nearest: a model's weights put on their grids without training, judged, and written as a GGUF.
#include "launch/export_model.h"
#include "launch/stages.h"
#include "launch/together.h"
#include "quantize/report.h"

namespace retort::launch {

StageOutcome quantize_stage(StageContext& context) {
  OpenedModel model;
  together(context.comm, [&] {
    model = open_model(context.stage.model.from, context.run, static_cast<uint64_t>(context.recipe.run.seed),
                       context.log);
    auto map = std::make_unique<quantize::QuantizeMap>(*context.stage.quantize, model.decoder->parameters());
    map->enable(true);
    map->fit_scales();
    replace_map(model, std::move(map));
  });
  StageOutcome outcome;
  outcome.result = parameter_counts(*model.decoder);
  outcome.result.update(evaluate(context, *model.decoder, *model.map, context.comm));
  on_rank_zero(context.comm, [&] {
    const at::NoGradGuard no_grad;
    context.files.make_directories(context.directory);
    const uint64_t bytes = export_model(model, {}, context.directory / "model.gguf", context.files);
    auto& map = dynamic_cast<quantize::QuantizeMap&>(*model.map);
    const auto rows = quantize::report(map, model.decoder->parameters());
    const Spent before = spent_before(context, context.stage.model.from);
    outcome.result.update({{"file_bytes", bytes},
                           {"bits_per_weight", quantize::bits_per_weight(rows)},
                           {"tokens", before.tokens},
                           {"seconds", before.seconds}});
    context.log.info("{}: {} at {:.2f} bits a weight", (context.directory / "model.gguf").string(),
                     format_bytes(bytes), quantize::bits_per_weight(rows));
  });
  return outcome;
}

}  // namespace retort::launch
