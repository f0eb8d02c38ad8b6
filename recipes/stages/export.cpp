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
  const Path out = context.out("model.gguf", artifacts::export_formats().at(options.format).one_file);
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    const artifacts::OpenedModel model = context.open_model(from, context.log);
    if (context.alone()) artifacts::probe_export("--out", options.format, out, model.source);
    if (options.evaluate)
      artifacts::check_tokenizer(model, *context.shards(data.validation, "validation"), "data.validation");
    const uint64_t bytes = artifacts::export_model(model, options, out, context.files);
    if (!model.tokenizer)
      context.log.warn("{}: has no tokenizer: {}", out.string(),
                       artifacts::export_formats().at(options.format).without_tokenizer);
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
