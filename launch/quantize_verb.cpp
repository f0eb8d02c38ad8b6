// A model put on a scheme's grids, written in every form that is asked for, and judged beside full precision.
#include <algorithm>

#include "kernels/cpu_tuning.h"
#include "launch/export_model.h"
#include "launch/out_path.h"
#include "launch/quantization.h"
#include "launch/score.h"
#include "launch/text_shards.h"
#include "launch/verbs.h"
#include "quantize/hf_packing.h"
#include "quantize/scheme.h"
#include "train/checkpoint.h"

namespace retort::launch {
namespace {

constexpr const char* kCheckpoint = "checkpoint";

struct Target {
  Path path;
  std::string format;  // gguf, a layout of a folder, or checkpoint
};

// ConfigError for a file that cannot hold the scheme.
std::vector<Target> targets_of(const QuantizeArguments& arguments, const quantize::Scheme& scheme) {
  const quantize::Grid& grid = quantize::grids().at(scheme.grid);
  std::vector<Target> targets;
  for (const std::string& out : arguments.out) {
    Target target{out, arguments.format};
    if (target.path.extension() == ".gguf") {
      target.format = "gguf";
      check<ConfigError>(grid.ggml && !scheme.activations,
                         "--out {}: a GGUF cannot hold scheme {}; name a folder", out, scheme.name);
    } else if (target.format == "auto") {
      target.format =
          quantize::layout_misfit("compressed-tensors", grid).empty() ? "compressed-tensors" : kCheckpoint;
    } else if (target.format != kCheckpoint) {
      const std::string misfit = quantize::layout_misfit(target.format, grid);
      check<ConfigError>(misfit.empty(), "--out {}: {}", out, misfit);
      check<ConfigError>(!scheme.activations || target.format == "compressed-tensors",
                         "--out {}: a {} folder cannot say that scheme {} rounds activations", out,
                         target.format, scheme.name);
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

constexpr std::string_view kCommand = "# retort quantize ";  // begins such a checkpoint's recipe

// A checkpoint takes the place of an older one of this verb only: rotation would remove a run's.
void check_replaceable(const Path& checkpoints, const std::string& source) {
  for (const Path& path : train::list_checkpoints(checkpoints)) {
    std::error_code no_path;  // preset:NAME is no file
    check<IoError>(!std::filesystem::equivalent(path, source, no_path),
                   "--out: {}: is the model that is read; name another directory", path.string());
    const Path recipe = path / "recipe.yaml";
    check<IoError>(std::filesystem::exists(recipe) && read_text(recipe).starts_with(kCommand),
                   "--out: {}: holds a run's checkpoints, which are not replaced; name another directory",
                   checkpoints.string());
  }
}

void write_checkpoint(const OpenedModel& model, const std::string& scheme, const Path& out) {
  train::CheckpointContent content;
  content.extra = model_facts(model.decoder->spec(), model.tokenizer ? model.tokenizer->name() : "",
                              std::nullopt, model.generation);
  if (!model.tokenizer) content.extra.erase("tokenizer");
  content.recipe = fmt::format("{}{} --scheme {}\n", kCommand, model.source, scheme);
  content.weights = train::weights_of(model.decoder->parameters());
  train::save_checkpoint(local_files(), out / "checkpoints", content, 1);
}

uint64_t write(const OpenedModel& model, const quantize::Scheme& scheme, const Target& target, Log& log) {
  if (target.format == kCheckpoint) {
    write_checkpoint(model, scheme.name, target.path);
  } else {
    recipes::ExportOptions options;
    options.format = target.format;
    options.activations = scheme.activations;
    export_model(model, options, target.path, local_files());
  }
  const uint64_t bytes = bytes_below(target.path);
  log.info("{}: {} ({})", target.path.string(), format_bytes(bytes), target.format);
  return bytes;
}

PostTrainingJob job_of(const QuantizeArguments& arguments, const quantize::Scheme& scheme,
                       const OpenedModel& model) {
  PostTrainingJob job{scheme.grids(), {}, nullptr, arguments.sequence};
  job.method.method = scheme.method;
  job.method.tokens = arguments.tokens;
  job.method.act_order = arguments.act_order;
  job.method.clip_search = arguments.clip_search;
  if (job.sequence <= 0) job.sequence = std::min<int64_t>(model.decoder->context(), 2048);
  job.grids.fallback = arguments.fallback;
  if (arguments.calibration.empty()) return job;
  if (quantize::is_importance_file(arguments.calibration)) {
    check<ConfigError>(scheme.method == "imatrix",
                       "--calibration {}: scheme {} reads text, not an importance matrix",
                       arguments.calibration, scheme.name);
    job.importance =
        quantize::load_importance(arguments.calibration, model.need_decoder("importance matrix"));
    return job;
  }
  job.calibration = shards_at(arguments.calibration, "train");
  check_tokenizer(model, *job.calibration, "--calibration " + arguments.calibration);
  return job;
}

JudgeText text_of(const QuantizeArguments& arguments, const PostTrainingJob& job, const OpenedModel& model) {
  JudgeText text{nullptr, job.sequence, arguments.limit};
  const Path beside = Path(arguments.calibration) / "validation";
  if (!arguments.text.empty())
    text.shards = shards_at(arguments.text, "validation");
  else if (std::filesystem::is_directory(beside))
    text.shards = std::make_shared<data::TokenShards>(beside);
  if (text.shards) check_tokenizer(model, *text.shards, "--text " + arguments.text);
  return text;
}

void probe(const QuantizeArguments& arguments, const std::vector<Target>& targets, const Path& source) {
  for (const Target& target : targets) probe_out("--out", target.path, target.format == "gguf", source);
  if (!arguments.json.empty()) probe_out("--json", arguments.json, true, source);
  if (!arguments.importance_out.empty())
    probe_out("--importance-out", arguments.importance_out, true, source);
}

void write_json(const std::string& path, const std::vector<Judged>& rows,
                const std::vector<quantize::TensorReport>& tensors, int64_t sequence) {
  formats::Json json = {{"models", formats::Json::array()}, {"tensors", formats::Json::array()}};
  for (const Judged& row : rows) {
    formats::Json entry = judged_json(row, sequence);
    entry["name"] = row.name;
    if (row.file_bytes) entry["file_bytes"] = *row.file_bytes;
    json["models"].push_back(std::move(entry));
  }
  for (const quantize::TensorReport& t : tensors)
    json["tensors"].push_back(
        {{"name", t.name}, {"grid", t.grid}, {"bits", t.bits}, {"relative_error", t.relative_error}});
  write_durably(local_files(), path, json.dump(1) + "\n");
}

}  // namespace

ExitCode quantize_verb(const QuantizeArguments& arguments) {
  kernels::tune_cpu();  // the same products as in a run
  Log log;
  const at::NoGradGuard no_grad;
  const quantize::Scheme& scheme = quantize::schemes().at(arguments.scheme);
  const std::vector<Target> targets = targets_of(arguments, scheme);
  OpenedModel model = open_model(arguments.model, "", 0, log);
  probe(arguments, targets, model.source);
  for (const Target& target : targets)
    if (target.format == kCheckpoint) check_replaceable(target.path / "checkpoints", model.source);
  models::Decoder& decoder = make_plain(model);
  PostTrainingJob job = job_of(arguments, scheme, model);
  const JudgeText text = text_of(arguments, job, model);
  if (!arguments.importance_out.empty()) {
    check<ConfigError>(job.calibration != nullptr, "--importance-out needs token shards in --calibration");
    const auto blocks = quantize::calibration_blocks(*job.calibration, decoder.vocabulary(), arguments.tokens,
                                                     job.sequence, 8);
    quantize::save_importance(local_files(), arguments.importance_out, decoder,
                              quantize::measure_importance(decoder, blocks, log), job.calibration->source(),
                              job.sequence);
    job.importance = quantize::load_importance(arguments.importance_out, decoder);  // as the file has it
  }
  const auto reference = text.shards ? f32_copy(decoder, *model.map) : nullptr;
  const auto comm = comm::make_self_comm();
  auto map = put_on_grids(decoder, job, *comm, log);
  const auto tensors = quantize::report(*map, decoder.parameters());
  model.map = std::move(map);

  std::vector<Judged> rows = {judge_reference(reference.get(), text, *comm)};
  if (!arguments.no_baselines && text.shards)
    for (Judged& row : judge_baselines(*reference, job, scheme.method, text, *comm, log))
      rows.push_back(std::move(row));
  rows.push_back(judge(scheme.name, reference.get(), decoder, tensors, text, *comm));
  for (const Target& target : targets) rows.back().file_bytes = write(model, scheme, target, log);
  fmt::print("{}\n{}", tensor_table(tensors), model_table(rows));
  if (!arguments.json.empty()) write_json(arguments.json, rows, tensors, text.sequence);
  return ExitCode::kDone;
}

}  // namespace retort::launch
