// A model's weights put on their grids without training, judged beside full precision, and written as
// export.format says: a GGUF (DIRECTORY/model.gguf) or a folder (DIRECTORY itself). DIRECTORY/quantization.md
// is the report.
#include <algorithm>

#include "comm/together.h"
#include "launch/export_model.h"
#include "launch/out_path.h"
#include "launch/score.h"
#include "launch/text_shards.h"
#include "models/family.h"
#include "quantize/hf_packing.h"
#include "quantize/scheme.h"
#include "recipes/data_options.h"
#include "recipes/export_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
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
  for (const auto& [key, name] : named_grids(grids)) {
    const std::string misfit =
        quantize::method_misfit(method, quantize::grids().at(name), key == "quantize.weights.grid");
    if (!misfit.empty()) check.add({key, "post_training.method", "post_training.clip_search"}, misfit);
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
  const auto& options = check.stage.get<ExportOptions>();
  if (options.format == "gguf" && options.type != "own")
    check.add("export.type", fmt::format("a quantize stage writes its own grids, got {}", options.type));
  if (options.format == "hf") return;  // values
  if (options.format != "gguf") {
    const std::string& name = grids.weights.grid;
    if (name == "none") return check.add("quantize.weights.grid", "names no grid to pack");
    const std::string misfit = quantize::layout_misfit(options.format, quantize::grids().at(name));
    if (!misfit.empty()) check.add({"quantize.weights.grid", "export.format"}, misfit);
    return;
  }
  for (const auto& [key, name] : named_grids(grids))
    if (!quantize::grids().at(name).ggml)
      check.add({key, "export.format"},
                fmt::format("a GGUF cannot hold grid {}; export.format compressed-tensors can", name));
}

void check_stage(StageCheck& check) {
  check.demand_model();
  if (!check.stage.get<QuantizeSection>() && scheme_of(check.stage) == nullptr)
    return check.add({"quantize", "post_training.scheme"}, "a quantize stage needs its grids, got none");
  const quantize::QuantizeOptions grids = grids_of(check.stage);
  check_method(check, grids);
  check_file(check, grids);
  const auto spec = check.model_spec();
  if (!spec) return;
  if (spec->patch)
    return check.add("model.from", fmt::format("a {} model is in no file of other software", spec->family));
  try {
    if (check.stage.get<ExportOptions>().format == "gguf")
      models::families().at(spec->family).gguf_metadata(*spec);
  } catch (const ConfigError& error) {
    check.add("export.format", error.what());
  }
  check.check_grids(*spec, grids);
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
  ExportOptions options;
};

// A place of a stage by itself says by its name what it is: a .gguf, or a folder.
ExportOptions format_of(const Path& out, ExportOptions options, const quantize::Grid& grid) {
  if (out.extension() == ".gguf")
    options.format = "gguf";
  else if (options.format == "gguf")
    options.format =
        quantize::layout_misfit("compressed-tensors", grid).empty() ? "compressed-tensors" : "checkpoint";
  return options;
}

// ConfigError for a file that cannot hold the grids.
std::vector<Target> targets_of(const StageContext& context, const quantize::QuantizeOptions& grids) {
  ExportOptions options = context.stage.get<ExportOptions>();
  const quantize::Scheme* scheme = scheme_of(context.stage);
  const bool activations = scheme != nullptr && scheme->activations;
  options.activations = options.activations || activations;
  if (!context.alone()) return {{context.out("model.gguf", options.format == "gguf"), options}};
  const quantize::Grid& grid = quantize::grids().at(grids.weights.grid);
  std::vector<Target> targets;
  for (const Path& out : context.outs) {
    Target target{out, format_of(out, options, grid)};
    const std::string& format = target.options.format;
    check<ConfigError>(format != "gguf" || (grid.ggml && !activations),
                       "--out {}: a GGUF cannot hold grid {}{}; name a folder", out.string(), grid.name,
                       activations ? " with rounded activations" : "");
    if (format != "gguf" && format != "checkpoint") {
      const std::string misfit = quantize::layout_misfit(format, grid);
      check<ConfigError>(misfit.empty(), "--out {}: {}", out.string(), misfit);
      check<ConfigError>(!activations || format == "compressed-tensors",
                         "--out {}: a {} folder cannot say that activations are rounded", out.string(),
                         format);
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

PostTrainingJob job_of(const StageContext& context, launch::OpenedModel& model) {
  PostTrainingJob job{grids_of(context.stage), method_of(context.stage), nullptr,
                      context.stage.get<DataOptions>().sequence};
  if (job.sequence <= 0) job.sequence = std::min<int64_t>(model.decoder->context(), 2048);
  if (!job.method.calibrated()) return job;
  const Input calibration = calibration_input(context.stage);
  if (calibration.thing == Thing::kFile) {
    job.importance = quantize::load_importance(calibration.address, model.need_decoder("importance matrix"));
  } else {
    job.calibration = open_shards(calibration, context.run);
    launch::check_tokenizer(model, *job.calibration, calibration.key);
  }
  return job;
}

// As its file has it, so that a run with the file gives the same.
void measure_importance(const StageContext& context, models::Decoder& model, PostTrainingJob& job) {
  if (job.method.importance_out.empty()) return;
  check<ConfigError>(job.calibration != nullptr,
                     "post_training.importance_out needs token shards to measure on");
  const auto blocks = quantize::calibration_blocks(*job.calibration, model.vocabulary(), job.method.tokens,
                                                   job.sequence, kJudgedRows);
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
  for (const quantize::TensorReport& t : tensors)
    json["tensors"].push_back(
        {{"name", t.name}, {"grid", t.grid}, {"bits", t.bits}, {"relative_error", t.relative_error}});
  return json;
}

// What is read and written, all of it tried before any work.
struct Opened {
  launch::OpenedModel model;
  std::unique_ptr<models::Decoder> reference;  // with a text to judge on
  std::vector<Target> targets;
  PostTrainingJob job;
  JudgeText text;
};

Opened open(const StageContext& context) {
  const auto& data = context.stage.get<DataOptions>();
  Opened out;
  out.targets = targets_of(context, grids_of(context.stage));
  out.model =
      launch::open_model(context.stage.get<ModelOptions>().from, context.run, context.seed(), context.log);
  if (context.alone())
    for (const Target& target : out.targets)
      launch::probe_out("--out", target.path, target.options.format == "gguf", out.model.source);
  if (const std::string& file = context.stage.get<PostTrainingOptions>().importance_out; !file.empty())
    launch::probe_out("importance_out", file, true, out.model.source);
  const models::Decoder& decoder = make_plain(out.model);
  out.job = job_of(context, out.model);
  out.text.sequence = out.job.sequence;
  out.text.limit = out.job.method.limit;
  if (data.validation.empty()) return out;
  out.text.shards = context.shards(data.validation, "validation");
  launch::check_tokenizer(out.model, *out.text.shards, "data.validation");
  out.reference = launch::f32_copy(decoder, *out.model.map);
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
  launch::OpenedModel& model = opened.model;
  models::Decoder& decoder = model.need_decoder("quantize stage");
  comm::on_rank_zero(context.comm, [&] { measure_importance(context, decoder, opened.job); });
  auto map = put_on_grids(decoder, opened.job, context.comm, context.log);
  std::vector<quantize::TensorReport> tensors;
  if (map) tensors = quantize::report(*map, decoder.parameters());

  models::Decoder* reference = opened.reference.get();
  const std::string& scheme = opened.job.method.scheme;
  std::vector<Judged> rows = {judge_reference(reference, opened.text, context.comm)};
  if (opened.job.method.baselines && reference != nullptr)
    for (Judged& row : judge_baselines(*reference, opened.job, opened.job.method.method, opened.text,
                                       context.comm, context.log))
      rows.push_back(std::move(row));
  rows.push_back(judge(scheme.empty() ? opened.job.method.method : scheme, reference, decoder, tensors,
                       opened.text, context.comm));
  StageOutcome outcome;
  outcome.result = parameter_counts(decoder);
  comm::on_rank_zero(context.comm, [&] {
    Judged& row = rows.back();
    model.map = std::move(map);
    for (const Target& target : opened.targets) {
      row.file_bytes = launch::export_model(model, target.options, target.path, context.files);
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
