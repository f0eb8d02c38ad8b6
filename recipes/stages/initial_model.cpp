#include "recipes/stages/initial_model.h"

#include <algorithm>
#include <limits>
#include <set>

#include "artifacts/copy_model.h"
#include "artifacts/identify.h"
#include "artifacts/open_stored.h"
#include "artifacts/text_shards.h"
#include "core/error.h"
#include "data/templates/spans.h"
#include "data/tokenizers/utf8.h"
#include "models/adapters.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/initial_values.h"
#include "models/shape_of.h"
#include "models/stored_adapters.h"
#include "recipes/address.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/preference_options.h"
#include "recipes/presets.h"
#include "recipes/stage_check.h"
#include "recipes/stages/teachers.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

// Of weights that come from an address.
artifacts::Origin origin_of(const artifacts::OpenedModel& model, const std::string& address) {
  artifacts::Origin out = model.origin;
  if (!out.start.empty() || preset_of(address)) return out;
  Path path = stage_of(address).value_or(address);
  if (!path.has_filename()) path = path.parent_path();
  out.start = path.filename().string();
  data::check_utf8(out.start, "replace", "");
  return out;
}

std::unique_ptr<models::Model> plain_teacher(const StageContext& context, const data::TokenShards& text,
                                             artifacts::Origin& origin, Log& log) {
  artifacts::OpenedModel teacher =
      open_teacher("model.init.from", init_source(context.stage), context, text, log);
  origin = origin_of(teacher, init_source(context.stage));
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

StartingModel cut_from_teacher(const StageContext& context, const std::vector<data::Source>& sources,
                               Log& log) {
  const distill::InitOptions& init = *context.stage.get<ModelOptions>().init;
  StartingModel out;
  const std::unique_ptr<models::Model> teacher =
      plain_teacher(context, *sources.front().shards, out.origin, log);
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
  out.model = std::move(student);
  return out;
}

// The masters of a model. Learned scales are continued where the grids are the same, and dropped otherwise.
models::StoredModel continued(artifacts::OpenedStored opened, const Stage& stage) {
  artifacts::OpenedModel& model = opened.model;
  const auto& grids = stage.get<QuantizeSection>();
  if (!model.quantize || (grids && quantize::same_grids(*model.quantize, *grids)))
    return {std::move(model.decoder), std::move(opened.values)};
  if (!opened.values) return {artifacts::copy_of(*model.decoder), {}};
  return {models::shape_of(*model.decoder, at::kMeta), std::move(opened.values)};
}

StartingModel started_with(models::StoredModel model, formats::Json generation,
                           std::optional<artifacts::AdapterFacts> adapters = {}) {
  StartingModel out;
  out.model = std::move(model.model);
  out.values = std::move(model.values);
  out.generation = std::move(generation);
  out.adapters = std::move(adapters);
  return out;
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

StartingModel adapted(const StageContext& context, artifacts::OpenedStored opened) {
  artifacts::OpenedModel& model = opened.model;
  const models::AdapterOptions& options = *context.stage.get<AdapterSection>();
  if (model.adapters) {
    const std::string misfit = adapters_misfit(model.adapters->options, options, model.source);
    check<ConfigError>(misfit.empty(), "adapters {}", misfit);
    const artifacts::AdapterFacts& own = *model.adapters;
    return started_with({std::move(model.decoder), std::move(opened.values)}, std::move(model.generation),
                        artifacts::AdapterFacts{options, base_path(context, own.base), own.digest});
  }
  models::StoredModel base = opened.take_base();
  models::check_choices(*base.model, options);
  const std::string digest = models::weights_digest(base.model->parameters(), base.values);
  return started_with(models::adapt(std::move(base), options, context.seed()), std::move(model.generation),
                      artifacts::AdapterFacts{options, base_path(context, model.source), digest});
}

}  // namespace

std::string init_source(const Stage& stage) {
  const auto& init = stage.get<ModelOptions>().init;
  if (!init) return "";
  if (init->from != "teacher") return init->from;
  const auto& distill = stage.get<DistillSection>();
  return distill ? distill->all_teachers().front().model : "";
}

std::string adapters_misfit(const models::AdapterOptions& own, const models::AdapterOptions& wanted,
                            const std::string& source) {
  if (own == wanted) return "";
  constexpr size_t kShown = 3;
  std::vector<std::string> modules = own.modules;
  if (modules.size() > kShown) {
    modules.resize(kShown);
    modules.push_back(fmt::format("... {} in all", own.modules.size()));
  }
  const bool named = own.modules != wanted.modules && !modules.empty();
  return fmt::format(
      "must be those of {}, which are continued{}; export it first for others over the merged model", source,
      named ? fmt::format(" (modules: {})", fmt::join(modules, ", ")) : "");
}

std::optional<models::DecoderSpec> init_spec(const Recipe& recipe, const Stage& stage) {
  auto spec = spec_of(recipe, init_source(stage));
  return spec && spec->lora_rank > 0 ? models::without_adapters(*spec) : spec;
}

namespace {

StartingModel from_model(const StageContext& context, const std::vector<data::Source>& sources, bool divided,
                         Log& log) {
  const Stage& s = context.stage;
  const std::string& from = s.get<ModelOptions>().from;
  artifacts::OpenedStored opened;
  if (divided)
    opened = context.open_stored(from, log);
  else
    opened.model = context.open_model(from, log);
  artifacts::check_tokenizer(opened.model, *sources.front().shards, "data.train");
  artifacts::Origin origin = origin_of(opened.model, from);
  formats::Json generation = opened.model.generation;
  StartingModel out;
  if (s.get<AdapterSection>())
    out = adapted(context, std::move(opened));
  else if (opened.model.adapters)
    out = started_with(opened.take_merged(), std::move(generation));
  else
    out = started_with(continued(std::move(opened), s), std::move(generation));
  out.origin = std::move(origin);
  return out;
}

// A model that learns to end its turns by a mark stops there, whatever its files said before.
formats::Json with_turn_ends(formats::Json generation, const data::TokenShards& text) {
  if (!text.has_loss_mask()) return generation;
  const auto tokenizer = text.tokenizer();
  std::vector<int32_t> ends = models::end_tokens(generation, tokenizer->vocabulary());
  if (ends.empty() && tokenizer->separator()) ends.push_back(*tokenizer->separator());
  const size_t before = ends.size();
  for (const int32_t id : data::turn_ends(*tokenizer))
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  if (ends.size() > before) generation["eos_token_id"] = ends;
  return generation;
}

StartingModel new_model(const Stage& s, uint64_t seed, bool divided) {
  const auto& train = s.get<train::TrainOptions>();
  StartingModel out{models::make_model(s.get<ModelOptions>().spec(), divided ? at::kMeta : at::kCPU)};
  models::Parameters& parameters = out.model->parameters();
  if (divided)
    out.values = [&parameters, kind = train.init, std = train.init_std, seed](const models::Parameter& p) {
      return models::initial_values(parameters, p, kind, std, seed);
    };
  else
    models::initialise(parameters, train.init, train.init_std, seed);
  return out;
}

StartingModel started(const StageContext& context, const std::vector<data::Source>& sources, bool divided,
                      Log& log) {
  const Stage& s = context.stage;
  if (!s.get<ModelOptions>().from.empty()) return from_model(context, sources, divided, log);
  if (s.get<ModelOptions>().init) return cut_from_teacher(context, sources, log);
  return new_model(s, context.seed(), divided);
}

// A scale that the model does not bring is its grid's to fit (quantize/quantize_map.h).
models::ParameterValues with_new_scales(const models::Parameters& brought, models::ParameterValues values) {
  std::set<std::string> scales;
  for (const models::Parameter& p : brought.unique())
    if (p.role == models::Role::kScale) scales.insert(p.name);
  return [scales, values = std::move(values)](const models::Parameter& p) {
    const bool fresh = p.role == models::Role::kScale && !scales.contains(p.name);
    return fresh ? at::full(p.shape, std::numeric_limits<float>::quiet_NaN()) : values(p);
  };
}

}  // namespace

bool starts_divided(const Stage& stage) {
  const auto& model = stage.get<ModelOptions>();
  return !model.init && artifacts::identify(model.from).kind != artifacts::Kind::kPeft;
}

StartingModel initial_model(const StageContext& context, const std::vector<data::Source>& sources,
                            bool divided, Log& log) {
  StartingModel out = started(context, sources, divided, log);
  out.generation = with_turn_ends(std::move(out.generation), *sources.front().shards);
  if (out.values) out.values = with_new_scales(out.model->parameters(), std::move(out.values));
  return out;
}

}  // namespace retort::recipes
