// A model's weights put on their grids without training, judged beside full precision, and written as
// export.format says: a GGUF (DIRECTORY/model.gguf) or a folder (DIRECTORY itself). DIRECTORY/quantization.md
// is the report.
#include <algorithm>
#include <set>

#include "artifacts/copy_model.h"
#include "artifacts/export_formats.h"
#include "artifacts/out_path.h"
#include "artifacts/text_shards.h"
#include "comm/together.h"
#include "models/family.h"
#include "quantize/recover.h"
#include "quantize/scheme.h"
#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
#include "recipes/score.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/judge.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {
namespace {

using formats::Json;
using quantize::PostTrainingOptions;

const quantize::Scheme* scheme_of(const Stage& stage) {
  return quantize::schemes().find(stage.get<PostTrainingOptions>().scheme);
}

// The section's grids, those of a scheme in the place of its first three.
quantize::QuantizeOptions grids_of(const Stage& stage) {
  quantize::QuantizeOptions grids = stage.get<QuantizeSection>().value_or(quantize::QuantizeOptions());
  if (const quantize::Scheme* scheme = scheme_of(stage)) {
    const quantize::QuantizeOptions named = scheme->grids();
    grids.weights = named.weights;
    grids.embedding = named.embedding;
    grids.head = named.head;
  }
  return grids;
}

PostTrainingOptions method_of(const Stage& stage) {
  PostTrainingOptions options = stage.get<PostTrainingOptions>();
  if (const quantize::Scheme* scheme = scheme_of(stage)) options.method = scheme->method;
  return options;
}

// What calibration reads: post_training.calibration, else data.train; of a mixture the first source, since what
// it sees need not be in proportion.
Input calibration_input(const Stage& stage) {
  const std::string& own = stage.get<PostTrainingOptions>().calibration;
  if (own.empty()) return training_inputs(stage).front();
  const bool measured = !stage_of(own) && quantize::is_importance_file(own);
  return {"post_training.calibration", own, measured ? Thing::kFile : Thing::kShards, "train"};
}

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = {model_input(stage), validation_input(stage)};
  if (method_of(stage).calibrated()) out.push_back(calibration_input(stage));
  return out;
}

using NamedGrids = std::vector<std::pair<std::string, std::string>>;

NamedGrids named_grids(const quantize::QuantizeOptions& grids) {
  NamedGrids out;
  for (const auto& [key, name] : NamedGrids{{"quantize.weights.grid", grids.weights.grid},
                                            {"quantize.embedding.grid", grids.embedding.grid},
                                            {"quantize.head.grid", grids.head.grid}})
    if (name != "none") out.emplace_back(key, name);
  return out;
}

void check_method(StageCheck& check, const quantize::QuantizeOptions& grids) {
  const PostTrainingOptions method = method_of(check.stage);
  std::set<std::string> said;
  for (const auto& [key, name] : named_grids(grids)) {
    const std::string misfit =
        quantize::method_misfit(method, quantize::grids().at(name), key == "quantize.weights.grid");
    if (!misfit.empty() && said.insert(misfit).second)
      check.add({key, "post_training.method", "post_training.clip_search", "post_training.recover"}, misfit);
  }
  if (method.recover)
    for (const quantize::GridException& one : grids.except) {
      const std::string misfit =
          one.grid == "none" ? "" : quantize::recovery_misfit(quantize::grids().at(one.grid));
      if (!misfit.empty() && said.insert(misfit).second)
        check.add({"quantize.except", "post_training.recover"}, misfit);
    }
  if (!method.calibrated()) return;
  const Input calibration = calibration_input(check.stage);
  if (calibration.address.empty())
    check.add({"data.train", "post_training.method"},
              fmt::format("must name token shards for method {} to read, got none", method.method));
  if (calibration.thing == Thing::kFile && method.method != "imatrix")
    check.add("post_training.calibration", fmt::format("{} is an importance matrix, and method {} reads text",
                                                       calibration.address, method.method));
}

// Every grid must be one that the stage's file can hold.
void check_file(StageCheck& check, const quantize::QuantizeOptions& grids) {
  const auto& options = check.stage.get<artifacts::ExportOptions>();
  const auto& format = artifacts::export_formats().at(options.format);
  if (format.packs == artifacts::Packs::kEverything && options.type != "own")
    check.add("export.type", fmt::format("a quantize stage writes its own grids, got {}", options.type));
  const QuantizeSection made = grids;
  check.check_export(&made);
}

void check_model(StageCheck& check, const quantize::QuantizeOptions& grids) {
  const auto spec = check.model_spec();
  if (!spec) return;
  std::unique_ptr<models::Model> shape;
  try {
    shape = models::make_model(*spec, at::kMeta);
  } catch (const ConfigError&) {  // a problem of the stage that makes the model
    return;
  }
  const std::string misfit = quantize::method_misfit(method_of(check.stage), *shape);
  if (!misfit.empty()) check.add({"post_training.method", "model.from"}, misfit);
  check.check_grids(*spec, grids);
}

void check_stage(StageCheck& check) {
  check.demand_model();
  if (!check.stage.get<QuantizeSection>() && scheme_of(check.stage) == nullptr)
    return check.add({"quantize", "post_training.scheme"}, "a quantize stage needs its grids, got none");
  const quantize::QuantizeOptions grids = grids_of(check.stage);
  check_method(check, grids);
  if (!check.alone) check_file(check, grids);
  check_model(check, grids);
}

void forget(Stage& stage) {
  const DataOptions before = stage.get<DataOptions>();
  DataOptions& data = stage.get<DataOptions>() = {};
  data.validation = before.validation;
  data.sequence = before.sequence;
  if (method_of(stage).calibrated() && stage.get<PostTrainingOptions>().calibration.empty()) {
    data.train = before.train;
    data.mixture = before.mixture;
  }
}

// ---- Running

struct Target {
  Path path;
  artifacts::ExportOptions options;
};

// A place of a stage by itself says by its name what it is: a .gguf, or a folder.
std::string format_of(const Path& out, const std::string& wanted, const quantize::Grid& grid) {
  if (out.extension() == ".gguf") return "gguf";
  if (wanted != "gguf") return wanted;
  const bool held = artifacts::export_formats().at("compressed-tensors").grid_misfit(grid).empty();
  return held ? "compressed-tensors" : "checkpoint";
}

// ConfigError for a file that cannot hold the grids.
std::vector<Target> targets_of(const StageContext& context, const quantize::QuantizeOptions& grids) {
  const auto& options = context.stage.get<artifacts::ExportOptions>();
  const auto& formats = artifacts::export_formats();
  const quantize::Scheme* scheme = scheme_of(context.stage);
  const bool rounds = options.activations || (scheme != nullptr && scheme->activations);
  std::vector<Target> targets;
  if (!context.alone())
    targets.push_back({context.out("model.gguf", formats.at(options.format).one_file()), options});
  const quantize::Grid* grid = quantize::grids().find(grids.weights.grid);
  for (const Path& out : context.outs) {
    Target target{out, options};
    target.options.format = grid == nullptr ? options.format : format_of(out, options.format, *grid);
    const auto& format = formats.at(target.options.format);
    const std::string misfit = grid == nullptr ? "" : format.grid_misfit(*grid);
    check<ConfigError>(misfit.empty(), "--out {}: {}", out.string(), misfit);
    check<ConfigError>(!rounds || format.activations || format.packs == artifacts::Packs::kValues,
                       "--out {}: {} cannot say that activations are rounded; name a folder of "
                       "compressed-tensors",
                       out.string(), format.noun);
    targets.push_back(std::move(target));
  }
  for (Target& target : targets)
    target.options.activations = rounds && formats.at(target.options.format).activations;
  return targets;
}

PostTrainingJob job_of(const StageContext& context, artifacts::OpenedModel& model) {
  PostTrainingJob job{grids_of(context.stage), method_of(context.stage), nullptr,
                      context.stage.get<DataOptions>().sequence};
  if (job.sequence <= 0) job.sequence = std::min<int64_t>(model.decoder->context(), 2048);
  if (!job.method.calibrated()) return job;
  const Input calibration = calibration_input(context.stage);
  if (calibration.thing == Thing::kFile) {
    job.importance = quantize::load_importance(calibration.address, *model.decoder);
  } else {
    job.calibration = open_shards(calibration, context.run);
    artifacts::check_tokenizer(model, *job.calibration, calibration.key);
  }
  return job;
}

// As its file has it, so that a run with the file gives the same.
void measure_importance(const StageContext& context, models::Model& model, PostTrainingJob& job) {
  if (job.method.importance_out.empty()) return;
  check<ConfigError>(job.calibration != nullptr,
                     "post_training.importance_out needs token shards to measure on");
  const auto blocks = quantize::calibration_blocks(*job.calibration, model.vocabulary(), job.method.tokens,
                                                   job.sequence, kCalibrationRows);
  quantize::save_importance(context.files, job.method.importance_out, model,
                            quantize::measure_importance(model, blocks, context.log),
                            job.calibration->source(), job.sequence);
  job.importance = quantize::load_importance(job.method.importance_out, model);
}

Json tables_json(const std::vector<Judged>& rows, const std::vector<quantize::TensorReport>& tensors,
                 int64_t sequence) {
  Json json = {{"models", Json::array()}, {"tensors", Json::array()}};
  for (const Judged& row : rows) {
    Json entry = judged_json(row, sequence);
    entry["name"] = row.name;
    if (row.file_bytes) entry["file_bytes"] = *row.file_bytes;
    json["models"].push_back(std::move(entry));
  }
  for (const quantize::TensorReport& t : tensors) {
    json["tensors"].push_back(
        {{"name", t.name}, {"grid", t.grid}, {"bits", t.bits}, {"relative_error", t.relative_error}});
    if (t.on_grid) json["tensors"].back()["on_grid"] = *t.on_grid;
  }
  return json;
}

// Of what was to be recovered.
void tell_recovered(const std::vector<quantize::TensorReport>& tensors, Log& log) {
  int64_t whole = 0, asked = 0;
  for (const quantize::TensorReport& t : tensors)
    if (t.on_grid) asked += 1, whole += *t.on_grid == 1 ? 1 : 0;
  log.info("recovered: {} of {} tensors lie on their grids and keep their codes{}", whole, asked,
           whole == asked ? "" : fmt::format("; {} do not and were rounded to nearest", asked - whole));
}

// What is read and written, all of it tried before any work.
struct Opened {
  artifacts::OpenedModel model;
  std::unique_ptr<models::Model> reference;  // with a text to judge on
  std::vector<Target> targets;
  PostTrainingJob job;
  JudgeText text;
};

Opened open(const StageContext& context) {
  const auto& data = context.stage.get<DataOptions>();
  Opened out;
  out.targets = targets_of(context, grids_of(context.stage));
  out.model = context.open_model(context.stage.get<ModelOptions>().from, context.log);
  if (context.alone())
    for (const Target& target : out.targets)
      artifacts::probe_export("--out", target.options.format, target.path, out.model.source);
  if (const std::string& file = context.stage.get<PostTrainingOptions>().importance_out; !file.empty())
    artifacts::probe_out("importance_out", file, true, out.model.source);
  const models::Model& decoder = make_plain(out.model);
  const QuantizeSection grids = grids_of(context.stage);
  for (const Target& target : out.targets)
    for (const artifacts::Misfit& misfit :
         artifacts::export_misfits(target.options, {&decoder.spec(), out.model.tokenizer.get(), &grids}))
      fail<ConfigError>("{}: {}", target.path.string(), misfit.why);
  out.job = job_of(context, out.model);
  out.text.sequence = out.job.sequence;
  out.text.limit = out.job.method.limit;
  if (data.validation.empty()) return out;
  out.text.shards = context.shards(data.validation, "validation");
  artifacts::check_tokenizer(out.model, *out.text.shards, "data.validation");
  out.reference = artifacts::f32_copy(decoder, out.model.map());
  return out;
}

void write_report(const StageContext& context, const std::string& tables) {
  if (context.alone()) {
    context.print(tables);
  } else {
    context.files.make_directories(context.directory);
    write_durably(context.files, context.directory / "quantization.md", tables);
  }
}

StageOutcome run(StageContext& context) {
  const at::NoGradGuard no_grad;
  Opened opened;
  comm::together(context.comm, [&] { opened = open(context); });
  artifacts::OpenedModel& model = opened.model;
  models::Model& decoder = *model.decoder;
  comm::on_rank_zero(context.comm, [&] { measure_importance(context, decoder, opened.job); });
  auto map = put_on_grids(decoder, opened.job, context.comm, context.log);
  std::vector<quantize::TensorReport> tensors;
  if (map) tensors = quantize::report(*map, decoder.parameters());
  for (quantize::TensorReport& t : tensors) t.on_grid = map->on_grid(t.name);

  models::Model* reference = opened.reference.get();
  const std::string& scheme = opened.job.method.scheme;
  std::vector<Judged> rows = {judge_reference(reference, opened.text, context.comm)};
  const quantize::PostTrainingOptions& method = opened.job.method;
  if (method.baselines && reference != nullptr)
    for (Judged& row : judge_baselines(*reference, opened.job, method.recover ? "" : method.method,
                                       opened.text, context.comm, context.log))
      rows.push_back(std::move(row));
  const std::string name = method.recover ? "recovered" : scheme.empty() ? method.method : scheme;
  rows.push_back(judge(name, reference, decoder, tensors, opened.text, context.comm));
  StageOutcome outcome;
  outcome.result = parameter_counts(decoder);
  comm::on_rank_zero(context.comm, [&] {
    Judged& row = rows.back();
    if (method.recover) tell_recovered(tensors, context.log);
    model.grids = std::move(map);
    for (const Target& target : opened.targets) {
      row.file_bytes = artifacts::export_model(
          model, target.options, target.path, context.files,
          fmt::format("quantize {} --scheme {}", model.source, scheme.empty() ? "grids" : scheme));
      if (!model.tokenizer)
        context.log.warn("{}: has no tokenizer: {}", target.path.string(),
                         artifacts::export_formats().at(target.options.format).without_tokenizer);
      context.log.info("{}: {} at {:.2f} bits a weight ({})", target.path.string(),
                       format_bytes(*row.file_bytes), row.bits_per_weight, target.options.format);
    }
    const Spent before = spent_before(context, context.stage.get<ModelOptions>().from);
    outcome.result.update(judged_json(row, opened.job.sequence));
    outcome.result.update(tables_json(rows, tensors, opened.job.sequence));
    outcome.result.update({{"tokens", before.tokens}, {"seconds", before.seconds}});
    if (row.file_bytes) outcome.result["file_bytes"] = *row.file_bytes;
    write_report(context, tensor_table(tensors) + "\n" + model_table(rows));
  });
  return outcome;
}

}  // namespace

StageKind quantize_stage() {
  return {
      .name = "quantize",
      .doc = "put a model's weights on grids, without training",
      .sections = {model_section(), data_section(), quantize_section(),
                   section_kind<PostTrainingOptions>("post_training", "how a quantize stage finds the codes"),
                   export_section()},
      .makes = Thing::kModel,
      .figures = model_figures({"bits_per_weight", "packed_bytes", "kl", "agreement"}),
      .inputs = inputs,
      .check = check_stage,
      .forget = forget,
      .run = run};
}

}  // namespace retort::recipes
