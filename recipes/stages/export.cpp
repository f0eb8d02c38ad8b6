// A model as a GGUF file (DIRECTORY/model.gguf) or as a folder (DIRECTORY itself); on request scored as read back
// from the file.
#include "artifacts/export_formats.h"

#include <algorithm>

#include "artifacts/text_shards.h"
#include "comm/together.h"
#include "models/family.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = {model_input(stage)};
  if (stage.get<artifacts::ExportOptions>().evaluate) out.push_back(validation_input(stage));
  return out;
}

// The grids that the model was trained on leave in the file.
void check_trained_grids(StageCheck& check) {
  const auto& options = check.stage.get<artifacts::ExportOptions>();
  const Stage* source = check.recipe.behind(check.stage.get<ModelOptions>().from);
  const auto* training = source != nullptr ? source->find<train::TrainOptions>() : nullptr;
  if (training == nullptr) return;
  const auto& grids = source->get<QuantizeSection>();
  const auto& format = artifacts::export_formats().at(options.format);
  const bool values = format.packs == artifacts::Packs::kEverything && options.type != "own";
  if (!grids || !grids->active(training->steps - 1) || values) return;
  const auto misfits = artifacts::grid_misfits(format, *grids);
  if (!misfits.empty())
    check.add({"export.format", "model.from"},
              fmt::format("{} (of stage {})", misfits.front().why, source->name));
}

void check_keys(StageCheck& check) {
  const auto& e = check.stage.get<artifacts::ExportOptions>();
  for (const auto& [key, type] :
       {std::pair{"export.type", e.type}, {"export.embedding_type", e.embedding_type}})
    if (const std::string why = artifacts::type_misfit(e.format, type); !why.empty())
      check.add({key, "export.format"}, why);
  if (e.activations && !artifacts::export_formats().at(e.format).activations)
    check.add({"export.activations", "export.format"},
              fmt::format("only compressed-tensors says so, got format {}", e.format));
  if (e.type == "own" && e.embedding_type != "same")
    check.add({"export.embedding_type", "export.type"},
              "needs an export.type; type own brings its own grids");
  if (e.evaluate && check.stage.get<DataOptions>().validation.empty())
    check.add("data.validation", "must name token shards for export.evaluate, got none");
}

void check_stage(StageCheck& check) {
  check_trained_grids(check);
  check.demand_model();
  check_keys(check);
  const auto& options = check.stage.get<artifacts::ExportOptions>();
  const auto spec = check.model_spec();
  if (!spec) return;
  const std::string refused = artifacts::format_misfit(options.format, *spec);
  if (!refused.empty()) return check.add({"export.format", "model.from"}, refused);
  models::DecoderSpec merged = *spec;
  merged.lora_rank = 0;
  const std::string misfit =
      artifacts::rows_misfit(options, models::make_model(merged, at::kMeta)->parameters());
  if (!misfit.empty()) check.add({"export.type", "export.embedding_type", "model.width"}, misfit);
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
  const Path out = context.out("model.gguf", artifacts::export_formats().at(options.format).one_file);
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    const artifacts::OpenedModel model = context.open_model(from, context.log);
    if (context.alone()) artifacts::probe_export("--out", options.format, out, model.source);
    if (options.evaluate)
      artifacts::check_tokenizer(model, *context.shards(data.validation, "validation"), "data.validation");
    const uint64_t bytes = artifacts::export_model(model, options, out, context.files);
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
