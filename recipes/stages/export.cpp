// A model as a GGUF file (DIRECTORY/model.gguf) or as a folder (DIRECTORY itself); on request scored as read back
// from the file.
#include "launch/export_model.h"

#include <algorithm>

#include "comm/together.h"
#include "launch/text_shards.h"
#include "models/family.h"
#include "quantize/hf_packing.h"
#include "recipes/data_options.h"
#include "recipes/export_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = {model_input(stage)};
  if (stage.get<ExportOptions>().evaluate) out.push_back(validation_input(stage));
  return out;
}

// The grids that the model was trained on leave in the file.
void check_trained_grids(StageCheck& check) {
  const auto& options = check.stage.get<ExportOptions>();
  const Stage* source = check.recipe.behind(check.stage.get<ModelOptions>().from);
  const auto* training = source != nullptr ? source->find<train::TrainOptions>() : nullptr;
  if (training == nullptr) return;
  const auto& grids = source->get<QuantizeSection>();
  if (!grids || !grids->active(training->steps - 1)) return;
  const auto refuse = [&](const std::string& why) {
    if (!why.empty())
      check.add({"export.format", "model.from"}, fmt::format("{} (of stage {})", why, source->name));
  };
  const std::string &format = options.format, &weights = grids->weights.grid;
  if (format == "gguf" && options.type == "own") {
    for (const std::string& grid : {weights, grids->embedding.grid, grids->head.grid})
      if (grid != "none" && !quantize::grids().at(grid).ggml)
        return refuse(fmt::format("a GGUF cannot hold grid {}; format compressed-tensors can", grid));
  } else if (format != "gguf" && format != "hf" && weights != "none") {
    refuse(quantize::layout_misfit(format, quantize::grids().at(weights)));
  }
}

void check_keys(StageCheck& check) {
  const auto& e = check.stage.get<ExportOptions>();
  const std::vector<std::string> plain = {"own", "same", "f32", "f16", "bf16"};
  for (const auto& [key, type] :
       {std::pair{"export.type", e.type}, {"export.embedding_type", e.embedding_type}})
    if (e.format != "gguf" && std::find(plain.begin(), plain.end(), type) == plain.end())
      check.add({key, "export.format"}, fmt::format("an HF folder holds f32, f16 or bf16, got {}", type));
  if (e.activations && e.format != "compressed-tensors")
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
  const auto spec = check.model_spec();
  if (!spec) return;
  if (spec->patch)
    return check.add("model.from", fmt::format("a {} model is in no file of other software", spec->family));
  const auto& options = check.stage.get<ExportOptions>();
  try {
    if (options.format == "gguf") models::families().at(spec->family).gguf_metadata(*spec);
  } catch (const ConfigError& error) {
    check.add("export.format", error.what());
  }
  models::DecoderSpec merged = *spec;
  merged.lora_rank = 0;
  const std::string misfit = export_misfit(options, models::make_model(merged, at::kMeta)->parameters());
  if (!misfit.empty()) check.add({"export.type", "export.embedding_type", "model.width"}, misfit);
}

void forget(Stage& stage) {
  const DataOptions before = stage.get<DataOptions>();
  DataOptions& data = stage.get<DataOptions>() = {};
  if (!stage.get<ExportOptions>().evaluate) return;
  data.validation = before.validation;
  data.sequence = before.sequence;
}

StageOutcome run(StageContext& context) {
  const auto& options = context.stage.get<ExportOptions>();
  const auto& data = context.stage.get<DataOptions>();
  const std::string& from = context.stage.get<ModelOptions>().from;
  const Path out = context.out("model.gguf", options.format == "gguf");
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    const launch::OpenedModel model = launch::open_model(from, context.run, context.seed(), context.log);
    if (options.evaluate)
      launch::check_tokenizer(model, *context.shards(data.validation, "validation"), "data.validation");
    const uint64_t bytes = launch::export_model(model, options, out, context.files);
    const Spent before = spent_before(context, from);
    outcome.result = parameter_counts(*model.decoder);  // what was trained; the file may hold copies
    outcome.result.update({{"file_bytes", bytes}, {"tokens", before.tokens}, {"seconds", before.seconds}});
    context.log.info("{}: {}", out.string(), format_bytes(bytes));
  });
  if (options.evaluate) {
    launch::OpenedModel back;
    comm::together(context.comm,
                   [&] { back = launch::open_model(out.string(), context.run, 0, context.log); });
    outcome.result.update(evaluate(context, *back.decoder, *back.map, context.comm));
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
