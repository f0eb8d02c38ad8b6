#include "launch/initial_model.h"

#include "artifacts/text_shards.h"
#include "core/error.h"
#include "launch/teachers.h"
#include "models/adapters.h"
#include "models/family.h"

namespace retort::launch {
namespace {

uint64_t seed_of(const StageContext& context) { return static_cast<uint64_t>(context.recipe.run.seed); }

std::unique_ptr<models::Model> plain_teacher(const StageContext& context, const data::TokenShards& text,
                                             Log& log) {
  OpenedModel teacher = open_teacher("model.init.from", context.stage.init_source(), context, text, log);
  if (teacher.decoder->spec().lora_rank == 0) return std::move(teacher.decoder);
  return models::merge_adapters(*teacher.decoder, teacher.map());
}

std::vector<models::TokenBlock> sample(const StageContext& context, const std::vector<data::Source>& sources,
                                       const models::Model& teacher) {
  const recipes::DataOptions& data = context.stage.data;
  const int64_t samples = context.stage.model.init->samples, rows = std::min(data.micro_batch, samples);
  const data::BatchStream stream(sources, {std::min(data.sequence, teacher.context()), rows, seed_of(context),
                                           true, data.isolate_documents});
  std::vector<models::TokenBlock> out;
  for (int64_t i = 0; i * rows < samples; ++i) {
    const data::Batch batch = stream.batch(i);
    out.push_back({batch.tokens_BT, batch.positions_BT, batch.document_BT});
  }
  return out;
}

std::unique_ptr<models::Model> cut_from_teacher(const StageContext& context,
                                                const std::vector<data::Source>& sources, Log& log) {
  const distill::InitOptions& init = *context.stage.model.init;
  const std::unique_ptr<models::Model> teacher = plain_teacher(context, *sources.front().shards, log);
  auto student = models::make_model(context.stage.model.spec());
  distill::check_start(student->spec(), teacher->spec(), init);
  const distill::Importance importance =
      init.width == "first" ? distill::importance_by_order(teacher->spec())
                            : distill::measure_importance(*teacher, sample(context, sources, *teacher),
                                                          init.width == "principal");
  distill::start_student(*student, *teacher, init, importance);
  log.info("starts from layers {} of {}",
           fmt::join(distill::layer_map(student->spec().layers, teacher->spec().layers, init), ", "),
           context.stage.init_source());
  return student;
}

// The masters of a model. Learned scales go on where the grids are the same; else they are left behind.
StartingModel continued(OpenedModel model, const recipes::Stage& stage) {
  if (!model.quantize || (stage.quantize && quantize::same_grids(*model.quantize, *stage.quantize)))
    return {std::move(model.decoder), std::move(model.generation)};
  return {artifacts::copy_of(*model.decoder), std::move(model.generation)};
}

}  // namespace

StartingModel initial_model(const StageContext& context, const std::vector<data::Source>& sources, Log& log) {
  const recipes::Stage& s = context.stage;
  if (!s.model.from.empty()) {
    OpenedModel model = open_model(s.model.from, context.run, seed_of(context), log);
    check_tokenizer(model, *sources.front().shards, "data.train");
    return continued(std::move(model), s);
  }
  if (s.model.init) return {cut_from_teacher(context, sources, log)};
  auto model = models::make_model(s.model.spec());
  models::initialise(model->parameters(), s.train.init, s.train.init_std, seed_of(context));
  return {std::move(model)};
}

}  // namespace retort::launch
