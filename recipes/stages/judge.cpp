#include "recipes/stages/judge.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "artifacts/copy_model.h"
#include "comm/together.h"
#include "core/error.h"
#include "core/table.h"
#include "models/adapters.h"
#include "models/family.h"
#include "quantize/activations.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/score.h"

namespace retort::recipes {
namespace {

constexpr int64_t kBaselineTokens = 16384;  // that GPTQ reads beside a training run

std::vector<quantize::TensorReport> tensors_of(const quantize::PackingMap* map, const models::Model& model) {
  return map == nullptr ? std::vector<quantize::TensorReport>() : quantize::report(*map, model.parameters());
}

}  // namespace

models::Model& make_plain(artifacts::OpenedModel& model) {
  if (model.decoder->parameters().has_adapters())
    model.decoder = models::merge_adapters(*model.decoder, model.map());
  else if (model.quantize)
    model.decoder = artifacts::f32_copy(*model.decoder, model.map());
  model.grids.reset();
  model.quantize.reset();
  model.adapters.reset();
  return *model.decoder;
}

std::unique_ptr<quantize::CodesMap> put_on_grids(models::Model& model, const PostTrainingJob& job,
                                                 comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  const auto shape = models::make_model(model.spec(), at::kMeta);     // no scales are declared beside weights
  const quantize::QuantizeMap grids(job.grids, shape->parameters());  // throws for what does not fit
  std::unique_ptr<quantize::CodesMap> map;
  comm::on_rank_zero(comm, [&] {
    quantize::CalibrationInput input;
    input.importance = job.importance;
    const bool measured = job.method.method == "imatrix" && job.importance;
    if (job.method.calibrated() && job.calibration != nullptr && !measured)
      input.blocks = quantize::calibration_blocks(*job.calibration, model.vocabulary(), job.method.tokens,
                                                  std::min(job.sequence, model.context()), kCalibrationRows);
    map = quantize::post_train(model, grids, job.method, input, log);
  });
  const quantize::InputMap& inputs = quantize::activation_kinds().at(job.grids.activations).map;
  for (models::Parameter& p : model.parameters().unique()) {
    comm.broadcast(p.master, 0).wait();
    if (p.role == models::Role::kMatrix && grids.grid_of(p) != nullptr) p.input_map = inputs;
  }
  return map;
}

Judged judge_reference(models::Model* reference, const JudgeText& text, comm::Comm& comm) {
  Judged row{.name = "full precision"};
  if (text.shards != nullptr)
    row.score = eval::score_text(*reference, *text.shards, text.sequence, comm, text.limit);
  return row;
}

Judged judge(const std::string& name, models::Model* reference, models::Model& candidate,
             const std::vector<quantize::TensorReport>& tensors, const JudgeText& text, comm::Comm& comm) {
  Judged row{.name = name,
             .bits_per_weight = quantize::bits_per_weight(tensors),
             .packed_bytes = quantize::packed_bytes(tensors)};
  if (text.shards == nullptr) return row;
  row.score = eval::score_text(candidate, *text.shards, text.sequence, comm, text.limit);
  row.divergence = eval::divergence(*reference, candidate, *text.shards, text.sequence, comm, text.limit);
  return row;
}

std::vector<Judged> judge_baselines(models::Model& reference, PostTrainingJob job, const std::string& except,
                                    const JudgeText& text, comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  std::vector<Judged> rows;
  job.method.clip_search = job.method.act_order = job.method.recover = false;
  for (const std::string method : {"rtn", "gptq"}) {
    job.method.method = method;
    const bool can = quantize::method_misfit(job.method, reference).empty();
    if (method == except || !can || (method == "gptq" && job.calibration == nullptr)) continue;
    job.importance.reset();
    models::IdentityMap identity;
    const auto copy = artifacts::f32_copy(reference, identity);
    const auto map = put_on_grids(*copy, job, comm, log);
    rows.push_back(judge(method, &reference, *copy, tensors_of(map.get(), *copy), text, comm));
  }
  return rows;
}

namespace {

// Answers that were compared or rated have no loss as a text; the stage's own figures are theirs.
JudgeText text_of(const StageContext& context, Log& log) {
  const auto& data = context.stage.get<DataOptions>();
  if (data.validation.empty()) return {};
  auto shards = context.shards(data.validation, "validation");
  if (shards->kind() == data::ShardKind::kText) return {std::move(shards), data.sequence};
  log.info(
      "data.validation: {} holds {}, not a text, so the trained grid is judged by preference_loss alone: {} "
      "compares no models",
      data.validation, name_of(shards->kind()), (context.directory / "quantization.md").string());
  return {};
}

}  // namespace

formats::Json report_training(const StageContext& context, const models::Model& model,
                              quantize::PackingMap& map, std::shared_ptr<const data::TokenShards> training,
                              comm::Comm& comm, Log& log) {
  const Stage& s = context.stage;
  std::unique_ptr<models::Model> reference;
  comm::together(comm, [&] {
    if (s.get<ModelOptions>().from.empty()) {
      models::IdentityMap identity;
      reference = artifacts::f32_copy(model, identity);
    } else {
      const artifacts::OpenedModel from = context.open_model(s.get<ModelOptions>().from, log);
      reference = artifacts::f32_copy(*from.decoder, from.map());
    }
  });
  JudgeText text;
  comm::together(comm, [&] { text = text_of(context, log); });
  if (training->size() < s.get<DataOptions>().sequence) training.reset();  // packed rows need no whole window
  std::vector<Judged> rows = {judge_reference(reference.get(), text, comm)};
  if (!s.get<ModelOptions>().from.empty() && text.shards != nullptr) {
    PostTrainingJob job{*s.get<QuantizeSection>(), {}, std::move(training), s.get<DataOptions>().sequence};
    job.method.tokens = kBaselineTokens;
    for (Judged& row : judge_baselines(*reference, std::move(job), "", text, comm, log))
      rows.push_back(std::move(row));
  }
  const auto tensors = quantize::report(map, model.parameters());
  rows.push_back(judge("trained", reference.get(), *artifacts::f32_copy(model, map), tensors, text, comm));
  comm::on_rank_zero(comm, [&] {
    write_durably(context.files, context.directory / "quantization.md",
                  tensor_table(tensors) + "\n" + model_table(rows));
  });
  formats::Json figures = {{"bits_per_weight", rows.back().bits_per_weight},
                           {"packed_bytes", rows.back().packed_bytes}};
  if (const auto& d = rows.back().divergence)
    figures.update({{"kl", d->kl.value}, {"agreement", d->agreement.value}});
  return figures;
}

std::string tensor_table(const std::vector<quantize::TensorReport>& tensors) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "grid", "bits", "weights", "relative error"}};
  const bool recovered = std::any_of(tensors.begin(), tensors.end(),
                                     [](const quantize::TensorReport& t) { return t.on_grid.has_value(); });
  if (recovered) rows.front().push_back("was on the grid");
  for (const quantize::TensorReport& t : tensors) {
    if (t.grid == "f32") continue;
    rows.push_back({t.name, t.grid, fmt::format("{:.4g}", t.bits), grouped(t.elements),
                    fmt::format("{:.4f}", t.relative_error)});
    if (t.on_grid) rows.back().push_back(*t.on_grid == 1 ? "yes" : fmt::format("{:.1f}%", 100 * *t.on_grid));
  }
  return markdown_table(rows);
}

std::string model_table(const std::vector<Judged>& models) {
  std::vector<std::vector<std::string>> rows = {
      {"model", "bits/weight", "file bytes", "bits/byte", "perplexity", "KL, nats", "same top-1"}};
  for (const Judged& m : models)
    rows.push_back({m.name, fmt::format("{:.2f}", m.bits_per_weight),
                    m.file_bytes ? grouped(static_cast<int64_t>(*m.file_bytes)) : "-",
                    m.score && m.score->bytes > 0 ? fmt::format("{:.4f}", m.score->bits_per_byte()) : "-",
                    m.score ? fmt::format("{:.3f}", m.score->perplexity()) : "-",
                    m.divergence ? fmt::format("{:.5f}", m.divergence->kl.value) : "-",
                    m.divergence ? fmt::format("{:.1f}%", 100 * m.divergence->agreement.value) : "-"});
  return markdown_table(rows);
}

formats::Json judged_json(const Judged& row, int64_t sequence) {
  formats::Json out = {{"bits_per_weight", row.bits_per_weight}, {"packed_bytes", row.packed_bytes}};
  if (row.score) out.update(score_json(*row.score, sequence));
  if (row.divergence)
    out.update({{"kl", row.divergence->kl.value}, {"agreement", row.divergence->agreement.value}});
  return out;
}

}  // namespace retort::recipes
