// Builds everything that a Trainer wants from a typed stage, trains, and judges the result on the whole
// validation text. Ranks are the launch's processes, or threads of this one.
#include <ATen/Parallel.h>

#include "artifacts/model_facts.h"
#include "comm/together.h"
#include "core/error.h"
#include "core/kept_pages.h"
#include "distill/objectives.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/on_ranks.h"
#include "recipes/stages/initial_model.h"
#include "recipes/stages/judge.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/teachers.h"
#include "recipes/stages/train_check.h"
#include "recipes/stages/train_plan.h"
#include "train/precision.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

// What one rank trains, in the order in which it is made.
struct Parts {
  std::unique_ptr<models::Model> model;
  formats::Json generation;
  std::unique_ptr<models::WeightMap> map;
  quantize::QuantizeMap* quantizing = nullptr;  // the map, when it is one
  std::unique_ptr<train::Objective> objective;
  std::unique_ptr<train::Optimizer> optimizer;
  std::unique_ptr<data::BatchStream> stream;
  const data::TokenShards& text() const { return *stream->sources().front().shards; }
};

std::unique_ptr<data::BatchStream> open_stream(const StageContext& context) {
  const DataOptions& data = context.stage.get<DataOptions>();
  std::vector<data::Source> sources;
  for (const SourceOptions& source : data.sources())
    sources.push_back({source.train, context.shards(source.train, "train"), source.weight});
  return std::make_unique<data::BatchStream>(
      std::move(sources), data::BatchOptions{data.sequence, data.micro_batch, context.seed(), true,
                                             data.isolate_documents, data.limit});
}

std::unique_ptr<train::Objective> make_objective(const StageContext& context, comm::Comm& comm, Log& log,
                                                 const std::vector<data::Source>& sources,
                                                 models::Model& student) {
  const auto& options = context.stage.get<DistillSection>();
  distill::ObjectiveInput input{.model = student, .seed = context.seed()};
  if (options) {
    input.teacher = make_teacher(context, student, sources, comm, log);
    input.losses = options->losses;
  }
  std::unique_ptr<train::Objective> objective;
  comm::together(comm, [&] {
    objective = distill::objectives().at(options ? "distillation" : "cross_entropy").make(std::move(input));
  });
  return objective;
}

Parts make_parts(const StageContext& context, comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  const auto& data = context.stage.get<DataOptions>();
  const auto& options = context.stage.get<train::TrainOptions>();
  const auto& grids = context.stage.get<QuantizeSection>();
  Parts parts;
  comm::together(comm, [&] {
    parts.stream = open_stream(context);
    StartingModel initial = initial_model(context, parts.stream->sources(), log);
    parts.model = std::move(initial.model);
    parts.generation = std::move(initial.generation);
    check<ConfigError>(parts.model->vocabulary() >= parts.text().vocabulary(),
                       "model.vocabulary must be at least the shards' {}, got {}", parts.text().vocabulary(),
                       parts.model->vocabulary());
    check<ConfigError>(parts.model->context() >= data.sequence,
                       "data.sequence must be at most the model's context {}, got {}", parts.model->context(),
                       data.sequence);
    if (grids) {
      auto map = std::make_unique<quantize::QuantizeMap>(*grids, parts.model->parameters());
      parts.quantizing = map.get();
      parts.map = std::move(map);
    } else {
      parts.map = std::make_unique<models::IdentityMap>();
    }
  });
  parts.objective = make_objective(context, comm, log, parts.stream->sources(), *parts.model);
  comm::together(comm, [&] {
    parts.optimizer =
        train::make_optimizer(options.optimizer, {parts.model->parameters(), parts.objective->learned()});
  });
  models::bind_working(parts.model->parameters(), *parts.map,
                       train::choose_precision(options.precision, comm, log, [&] { return context.tuning; }));
  return parts;
}

int64_t micro_batches_of(const DataOptions& data, int ranks) {
  const int64_t unit = data.sequence * data.micro_batch * ranks;
  check<ConfigError>(
      data.batch_tokens % unit == 0,
      "data.batch_tokens must be a multiple of sequence * micro_batch * ranks = {} * {} * {} = {}, got {}",
      data.sequence, data.micro_batch, ranks, unit, data.batch_tokens);
  return data.batch_tokens / unit;
}

// Of the model in the newest checkpoint, whose file also holds what the objective has learned.
uint64_t weights_bytes(const Path& directory, models::Parameters* learned) {
  const auto checkpoints = train::list_checkpoints(directory / "checkpoints");
  if (checkpoints.empty()) return 0;
  const uint64_t bytes = std::filesystem::file_size(checkpoints.front() / "weights.safetensors");
  return learned == nullptr ? bytes : bytes - sizeof(float) * static_cast<uint64_t>(learned->stored());
}

// The figures that a run says of its model: made during training, and once more at the end unless the last
// validation was just there.
class Judge {
 public:
  Judge(const StageContext& context, Parts& parts, comm::Comm& comm)
      : context_(context), parts_(parts), comm_(comm) {}
  std::map<std::string, double> validate(int64_t done) {
    scores_ = evaluate(context_, *parts_.model, *parts_.map, comm_);
    done_ = done;
    if (scores_.empty()) return {};
    return {{"bits_per_byte", scores_.at("bits_per_byte").get<double>()}};
  }
  formats::Json at(int64_t done) {
    if (done_ != done) validate(done);
    return scores_;
  }

 private:
  const StageContext& context_;
  Parts& parts_;
  comm::Comm& comm_;
  formats::Json scores_;
  int64_t done_ = -1;
};

StageOutcome train_rank(StageContext& context, comm::Comm& comm, Log& log) {
  const Stage& s = context.stage;
  at::set_num_threads(static_cast<int>(context.threads));
  const int64_t micro_batches = micro_batches_of(s.get<DataOptions>(), comm.size());
  Parts parts = make_parts(context, comm, log);
  models::Parameters& parameters = parts.model->parameters();
  Judge judge(context, parts, comm);
  train::Trainer trainer({.step = {*parts.model, *parts.map, *parts.objective, *parts.optimizer, comm},
                          .stream = *parts.stream,
                          .files = context.files,
                          .log = log,
                          .directory = context.directory,
                          .recipe = context.identity,
                          .facts = artifacts::model_facts({parts.model->spec(), parts.text().tokenizer_name(),
                                                           s.get<QuantizeSection>(), parts.generation}),
                          .tokenizer = data::tokenizer_files(*parts.text().tokenizer()),
                          .validate = [&](int64_t done) { return judge.validate(done); },
                          .stop = &context.stop,
                          .resume_from = context.resume_from},
                         s.get<train::TrainOptions>(), micro_batches);
  const train::TrainReport report = trainer.run();
  StageOutcome outcome;
  outcome.preempted = report.preempted || comm.reduce(int64_t{context.stop.load()}, comm::Reduce::kMax) > 0;
  if (outcome.preempted) return outcome;
  outcome.result = parameter_counts(*parts.model);
  outcome.result.update(judge.at(s.get<train::TrainOptions>().steps));
  if (parts.quantizing != nullptr)
    outcome.result.update(report_training(context, *parts.model, *parts.quantizing,
                                          parts.stream->sources().front().shards, comm, log));
  if (comm.rank() != 0) return outcome;
  const Spent before =
      spent_before(context, s.get<ModelOptions>().init ? init_source(s) : s.get<ModelOptions>().from);
  outcome.result.update({{"file_bytes", weights_bytes(context.directory, parts.objective->learned())},
                         {"steps", report.steps},
                         {"final_loss", report.final_loss},
                         {"precision", train::precision_of(parameters)},
                         {"flops_per_token", parts.model->flops_per_token(s.get<DataOptions>().sequence)},
                         {"tokens", before.tokens + report.tokens},
                         {"seconds", before.seconds + report.seconds}});
  return outcome;
}

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = {model_input(stage)};
  const auto& init = stage.get<ModelOptions>().init;
  if (init && init->from != "teacher") out.push_back({"model.init.from", init->from, Thing::kModel});
  for (Input& source : training_inputs(stage)) out.push_back(std::move(source));
  out.push_back(validation_input(stage));
  const auto& distill = stage.get<DistillSection>();
  if (!distill) return out;
  const std::string key = distill->teachers.empty() ? "distill.teacher." : "distill.teachers.";
  for (const TeacherOptions& teacher : distill->all_teachers()) {
    out.push_back({key + "model", teacher.model, Thing::kModel});
    for (const std::string& cache : teacher.cache) out.push_back({key + "cache", cache, Thing::kCache});
  }
  return out;
}

// Ranks, and how a run is watched and kept, move no weight.
void forget(Stage& stage) {
  const train::TrainOptions usual;
  auto& train = stage.get<train::TrainOptions>();
  train.log_every = usual.log_every;
  train.validate_every = usual.validate_every;
  train.checkpoint_every = usual.checkpoint_every;
  train.keep_checkpoints = usual.keep_checkpoints;
  train.max_skipped = usual.max_skipped;
  train.max_failed_saves = usual.max_failed_saves;
  stage.get<ParallelOptions>() = {};
}

StageOutcome run(StageContext& context) {
  const KeptPages kept;
  return on_ranks(context, train_rank);
}

}  // namespace

StageKind train_stage() {
  return {
      .name = "train",
      .doc = "pretrain, fine-tune, distil (with distill) or train for a grid (with quantize)",
      .sections = {model_section(), data_section(),
                   section_kind<train::TrainOptions>("train", "how long and how"),
                   section_kind<DistillSection>("distill", "learn from a teacher; without it: cross-entropy"),
                   quantize_section(), parallel_section()},
      .makes = Thing::kModel,
      .figures = model_figures(
          {"bits_per_weight", "packed_bytes", "kl", "agreement", "steps", "final_loss", "flops_per_token"}),
      .continues = true,
      .resumes = true,
      .seeded = true,
      .inputs = inputs,
      .check = check_train_stage,
      .forget = forget,
      .plan = train_plan,
      .run = run};
}

}  // namespace retort::recipes
