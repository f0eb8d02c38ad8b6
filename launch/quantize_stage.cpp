// A model's weights put on their grids without training, judged beside full precision, and written as
// export.format says: a GGUF (DIRECTORY/model.gguf) or a folder (DIRECTORY itself). DIRECTORY.md beside it is
// the report.
#include "artifacts/export_model.h"
#include "artifacts/text_shards.h"
#include "launch/quantization.h"
#include "launch/score.h"
#include "launch/stages.h"
#include "launch/together.h"

namespace retort::launch {
namespace {

PostTrainingJob job_of(const StageContext& context) {
  const recipes::Stage& s = context.stage;
  PostTrainingJob job{*s.quantize, s.post_training, nullptr, s.data.sequence};
  if (recipes::reads_training_text(s)) {
    // Of a mixture, the first source: what calibration sees need not be in proportion.
    job.calibration = open_shards(context, s.data.sources().front().train, "train");
  }
  return job;
}

}  // namespace

StageOutcome quantize_stage(StageContext& context) {
  const recipes::Stage& s = context.stage;
  const at::NoGradGuard no_grad;
  JudgeText text;
  if (!s.data.validation.empty())
    text = {open_shards(context, s.data.validation, "validation"), s.data.sequence};
  OpenedModel model;
  std::unique_ptr<models::Model> reference;
  together(context.comm, [&] {
    model =
        open_model(s.model.from, context.run, static_cast<uint64_t>(context.recipe.run.seed), context.log);
    if (text.shards) check_tokenizer(model, *text.shards, "data.validation");
    const models::Model& decoder = make_plain(model);
    if (text.shards) reference = artifacts::f32_copy(decoder, model.map());
  });
  models::Model& decoder = *model.decoder;
  PostTrainingJob job;
  together(context.comm, [&] {
    job = job_of(context);
    if (job.calibration) check_tokenizer(model, *job.calibration, "data.train");
  });
  auto map = put_on_grids(decoder, job, context.comm, context.log);
  std::vector<quantize::TensorReport> tensors;
  if (map) tensors = quantize::report(*map, decoder.parameters());

  Judged row = judge(s.post_training.method, reference.get(), decoder, tensors, text, context.comm);
  const Judged full = judge_reference(reference.get(), text, context.comm);
  StageOutcome outcome;
  outcome.result = parameter_counts(decoder);
  on_rank_zero(context.comm, [&] {
    model.grids = std::move(map);
    const bool gguf = s.exporting.format == "gguf";
    const Path out = gguf ? context.directory / "model.gguf" : context.directory;
    if (gguf) context.files.make_directories(context.directory);
    row.file_bytes = export_model(model, s.exporting, out, context.files);
    const Spent before = spent_before(context, s.model.from);
    outcome.result.update(judged_json(row, s.data.sequence));
    outcome.result.update(
        {{"file_bytes", *row.file_bytes}, {"tokens", before.tokens}, {"seconds", before.seconds}});
    write_durably(context.files, context.directory / "quantization.md",
                  tensor_table(tensors) + "\n" + model_table({full, row}));
    context.log.info("{}: {} at {:.2f} bits a weight", out.string(), format_bytes(*row.file_bytes),
                     row.bits_per_weight);
  });
  return outcome;
}

}  // namespace retort::launch
