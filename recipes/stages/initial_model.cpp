#include "recipes/stages/initial_model.h"

#include "artifacts/copy_model.h"
#include "artifacts/text_shards.h"
#include "core/error.h"
#include "models/adapters.h"
#include "models/family.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stages/teachers.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

std::unique_ptr<models::Model> plain_teacher(const StageContext& context, const data::TokenShards& text,
                                             Log& log) {
  artifacts::OpenedModel teacher =
      open_teacher("model.init.from", init_source(context.stage), context, text, log);
  if (!teacher.decoder->parameters().has_adapters()) return std::move(teacher.decoder);
  return models::merge_adapters(*teacher.decoder, teacher.map());
}

std::vector<models::TokenBlock> sample(const StageContext& context, const std::vector<data::Source>& sources,
                                       const models::Model& teacher) {
  const DataOptions& data = context.stage.get<DataOptions>();
  const int64_t samples = context.stage.get<ModelOptions>().init->samples,
                rows = std::min(data.micro_batch, samples);
  const data::BatchStream stream(sources, {std::min(data.sequence, teacher.context()), rows, context.seed(),
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
  const distill::InitOptions& init = *context.stage.get<ModelOptions>().init;
  const std::unique_ptr<models::Model> teacher = plain_teacher(context, *sources.front().shards, log);
  auto student = models::make_model(context.stage.get<ModelOptions>().spec());
  distill::check_start(student->spec(), teacher->spec(), init);
  const distill::Importance importance =
      init.width == "first" ? distill::importance_by_order(teacher->spec())
                            : distill::measure_importance(*teacher, sample(context, sources, *teacher),
                                                          init.width == "principal");
  distill::start_student(*student, *teacher, init, importance);
  log.info("starts from layers {} of {}",
           fmt::join(distill::layer_map(student->spec().layers, teacher->spec().layers, init), ", "),
           init_source(context.stage));
  return student;
}

// The masters of a model. Learned scales are continued where the grids are the same, and dropped otherwise.
StartingModel continued(artifacts::OpenedModel model, const Stage& stage) {
  if (!model.quantize ||
      (stage.get<QuantizeSection>() && quantize::same_grids(*model.quantize, *stage.get<QuantizeSection>())))
    return {std::move(model.decoder), std::move(model.generation)};
  return {artifacts::copy_of(*model.decoder), std::move(model.generation)};
}

// Where the base is, for a checkpoint of this stage: from its own directory when both are in the run.
std::string base_path(const StageContext& context, const std::string& source) {
  const Path base = std::filesystem::absolute(source).lexically_normal();
  const Path run = std::filesystem::absolute(context.run).lexically_normal();
  const Path inside = base.lexically_relative(run);
  if (context.alone() || inside.empty() || *inside.begin() == "..") return base.string();
  const Path checkpoint = context.directory / "checkpoints" / "step";
  return base.lexically_relative(std::filesystem::absolute(checkpoint).lexically_normal()).string();
}

StartingModel adapted(const StageContext& context, artifacts::OpenedModel model) {
  const models::AdapterOptions& options = *context.stage.get<AdapterSection>();
  if (model.adapters) {
    check<ConfigError>(
        model.adapters->options == options,
        "adapters must be those of {}, which are continued; export it first for others over the merged "
        "model",
        model.source);
    const artifacts::AdapterFacts& own = *model.adapters;
    return {std::move(model.decoder), std::move(model.generation),
            artifacts::AdapterFacts{options, base_path(context, own.base), own.digest}};
  }
  auto base = model.take_base();
  const std::string digest = models::weights_digest(base->parameters());
  return {models::adapt(std::move(base), options, context.seed()), std::move(model.generation),
          artifacts::AdapterFacts{options, base_path(context, model.source), digest}};
}

}  // namespace

std::string init_source(const Stage& stage) {
  const auto& init = stage.get<ModelOptions>().init;
  if (!init) return "";
  if (init->from != "teacher") return init->from;
  const auto& distill = stage.get<DistillSection>();
  return distill ? distill->all_teachers().front().model : "";
}

std::optional<models::DecoderSpec> init_spec(const Recipe& recipe, const Stage& stage) {
  auto spec = spec_of(recipe, init_source(stage));
  return spec && spec->lora_rank > 0 ? models::without_adapters(*spec) : spec;
}

StartingModel initial_model(const StageContext& context, const std::vector<data::Source>& sources, Log& log) {
  const Stage& s = context.stage;
  if (!s.get<ModelOptions>().from.empty()) {
    artifacts::OpenedModel model = context.open_model(s.get<ModelOptions>().from, log);
    artifacts::check_tokenizer(model, *sources.front().shards, "data.train");
    if (s.get<AdapterSection>()) return adapted(context, std::move(model));
    if (model.adapters)
      return {models::merge_adapters(*model.decoder, model.map()), std::move(model.generation)};
    return continued(std::move(model), s);
  }
  if (s.get<ModelOptions>().init) return {cut_from_teacher(context, sources, log)};
  auto model = models::make_model(s.get<ModelOptions>().spec());
  models::initialise(model->parameters(), s.get<train::TrainOptions>().init,
                     s.get<train::TrainOptions>().init_std, context.seed());
  return {std::move(model)};
}

}  // namespace retort::recipes
