// A model as one file (DIRECTORY/model.gguf, adapter.gguf) or as a folder (DIRECTORY itself); on request scored as
// read back from the file.
#include "artifacts/export_formats.h"

#include <algorithm>

#include "artifacts/text_shards.h"
#include "comm/together.h"
#include "models/adapters.h"
#include "models/family.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/rows.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

// Earlier stages that have evaluated what is exported, as far as its file has a card that shows it.
std::vector<std::string> evaluations(const Recipe& recipe, const Stage& stage) {
  std::vector<std::string> out;
  const std::string& from = stage.get<ModelOptions>().from;
  const auto* format = artifacts::export_formats().find(stage.get<artifacts::ExportOptions>().format);
  if (format == nullptr || !format->card || !stage_of(from)) return out;
  for (const Stage& other : recipe.stages) {
    if (other.name == stage.name) break;
    if (other.find<EvaluateOptions>() != nullptr && other.get<ModelOptions>().from == from)
      out.push_back(other.name);
  }
  return out;
}

std::vector<Input> inputs(const Recipe& recipe, const Stage& stage) {
  std::vector<Input> out = {model_input(stage)};
  if (stage.get<artifacts::ExportOptions>().evaluate) out.push_back(validation_input(stage));
  for (const std::string& name : evaluations(recipe, stage))
    out.push_back({"model.from", "stage:" + name, Thing::kResult});
  return out;
}

// Figures that have a standard error beside them.
void add_evaluated(std::vector<artifacts::CardFigure>& figures, const formats::Json& result) {
  for (const auto& [name, value] : result.items()) {
    const auto error = result.find(name + "_error");
    if (!value.is_number() || error == result.end()) continue;
    figures.push_back({.name = name, .value = value.get<double>()});
    if (error->is_number()) figures.back().error = error->get<double>();
  }
}

// What the run knows of the model.
artifacts::CardFacts card_facts(const StageContext& context) {
  const auto source = stage_of(context.stage.get<ModelOptions>().from);
  artifacts::CardFacts card{.name = source.value_or(""), .figures = {}, .tokens = {}};
  if (!source) return card;
  const Spent before = spent_before(context, context.stage.get<ModelOptions>().from);
  if (before.tokens > 0) card.tokens = before.tokens;
  const auto result = read_result(context.run, *source);
  for (const char* figure : {"bits_per_byte", "perplexity"})
    if (result && result->contains(figure) && result->at(figure).is_number())
      card.figures.push_back({.name = fmt::format("{} of the validation text", figure),
                              .value = result->at(figure).get<double>()});
  for (const std::string& name : evaluations(context.recipe, context.stage))
    if (const auto evaluated = read_result(context.run, name)) add_evaluated(card.figures, *evaluated);
  return card;
}

// A format of adapters alone wants a stage that trains some, of a kind that the format can say.
void check_adapters(StageCheck& check, const artifacts::ExportFormat& format) {
  const Stage* source = check.recipe.maker_of(check.stage.get<ModelOptions>().from);
  const auto* adapters = source == nullptr ? nullptr : source->find<AdapterSection>();
  if (adapters == nullptr) return;  // a file, which is asked when it is exported
  if (!*adapters)
    return check.add({"export.format", "model.from"},
                     fmt::format("{} holds adapters, and stage {} trains none", format.noun, source->name));
  const auto spec = spec_of(check.recipe, check.stage);
  if (!spec) return;
  try {
    const auto shapes = models::adapt(models::make_model(*spec, at::kMeta), **adapters, 0);
    const std::string misfit = format.adapters_misfit(*shapes, **adapters);
    if (!misfit.empty()) check.add({"export.format", "model.from"}, misfit);
  } catch (const ConfigError&) {  // a problem of the stage that trains them
  }
}

void check_stage(StageCheck& check) {
  const auto& e = check.stage.get<artifacts::ExportOptions>();
  check.demand_model();
  if (e.evaluate && e.format == "gguf-lora")
    check.add({"export.evaluate", "export.format"},
              "a GGUF adapter is no model that is read back; format peft is, and holds the same adapters");
  if (e.type == "own" && e.embedding_type != "same")
    check.add({"export.embedding_type", "export.type"},
              "needs an export.type; type own brings its own grids");
  check.check_export();
  const artifacts::ExportFormat& format = artifacts::export_formats().at(e.format);
  if (format.adapters) check_adapters(check, format);
  if (!e.evaluate) return;
  check.model_spec();
  if (check.stage.get<DataOptions>().validation.empty())
    check.add("data.validation", "must name token shards for export.evaluate, got none");
}

void forget(Stage& stage) {
  const DataOptions before = stage.get<DataOptions>();
  DataOptions& data = stage.get<DataOptions>() = {};
  if (!stage.get<artifacts::ExportOptions>().evaluate) return;
  data.validation = before.validation;
  data.sequence = before.sequence;
}

StageOutcome run(StageContext& context) {
  const auto& options = context.stage.get<artifacts::ExportOptions>();
  const auto& data = context.stage.get<DataOptions>();
  const std::string& from = context.stage.get<ModelOptions>().from;
  const artifacts::ExportFormat& format = artifacts::export_formats().at(options.format);
  const Path out = context.out(format.file.c_str(), format.one_file());
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    const artifacts::OpenedModel model = context.open_model(from, context.log);
    if (context.alone()) artifacts::probe_export("--out", options.format, out, model.source);
    if (options.evaluate)
      artifacts::check_tokenizer(model, *context.shards(data.validation, "validation"), "data.validation");
    const uint64_t bytes =
        artifacts::export_model(model, options, out, context.files, "", card_facts(context));
    if (!model.tokenizer)
      context.log.warn("{}: has no tokenizer: {}", out.string(), format.without_tokenizer);
    const Spent before = spent_before(context, from);
    outcome.result = parameter_counts(*model.decoder);  // what was trained; the file may hold copies
    outcome.result.update({{"file_bytes", bytes}, {"tokens", before.tokens}, {"seconds", before.seconds}});
    context.log.info("{}: {}", out.string(), format_bytes(bytes));
  });
  if (options.evaluate) {
    artifacts::OpenedModel back;
    comm::together(context.comm, [&] { back = context.open_model(out.string(), context.log); });
    outcome.result.update(evaluate(context, *back.decoder, back.map(), context.comm));
  }
  return outcome;
}

}  // namespace

StageKind export_stage() {
  return {.name = "export",
          .doc = "a file for other software",
          .sections = {model_section(), data_section(), export_section()},
          .makes = Thing::kModel,
          .figures = model_figures(),
          .inputs = inputs,
          .check = check_stage,
          .forget = forget,
          .run = run};
}

}  // namespace retort::recipes
