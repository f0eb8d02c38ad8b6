// Builds everything that a Trainer wants from a typed stage, trains, and judges the result on the whole
// validation text. Ranks are the launch's processes, or threads of this one.
#include <ATen/Parallel.h>

#include "core/error.h"
#include "core/kept_pages.h"
#include "distill/objective.h"
#include "launch/initial_model.h"
#include "launch/on_ranks.h"
#include "launch/quantization.h"
#include "launch/teachers.h"
#include "launch/together.h"
#include "train/precision.h"

namespace retort::launch {
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
  const recipes::DataOptions& data = context.stage.data;
  std::vector<data::Source> sources;
  for (const recipes::SourceOptions& source : data.sources())
    sources.push_back({source.train, open_shards(context, source.train, "train"), source.weight});
  return std::make_unique<data::BatchStream>(
      std::move(sources),
      data::BatchOptions{data.sequence, data.micro_batch, static_cast<uint64_t>(context.recipe.run.seed),
                         true, data.isolate_documents, data.limit});
}

std::unique_ptr<train::Objective> make_objective(const StageContext& context, comm::Comm& comm, Log& log,
                                                 const std::vector<data::Source>& sources,
                                                 models::Model& student) {
  if (!context.stage.distill) return train::make_cross_entropy();
  std::unique_ptr<distill::Teacher> teacher = make_teacher(context, student, sources, comm, log);
  std::unique_ptr<train::Objective> objective;
  together(comm, [&] {
    objective = distill::make_distillation(std::move(teacher), context.stage.distill->losses, student,
                                           static_cast<uint64_t>(context.recipe.run.seed));
  });
  return objective;
}

Parts make_parts(const StageContext& context, comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  const recipes::Stage& s = context.stage;
  Parts parts;
  together(comm, [&] {
    parts.stream = open_stream(context);
    StartingModel initial = initial_model(context, parts.stream->sources(), log);
    parts.model = std::move(initial.model);
    parts.generation = std::move(initial.generation);
    check<ConfigError>(parts.model->vocabulary() >= parts.text().vocabulary(),
                       "model.vocabulary must be at least the shards' {}, got {}", parts.text().vocabulary(),
                       parts.model->vocabulary());
    check<ConfigError>(parts.model->context() >= s.data.sequence,
                       "data.sequence must be at most the model's context {}, got {}", parts.model->context(),
                       s.data.sequence);
    if (s.quantize) {
      auto map = std::make_unique<quantize::QuantizeMap>(*s.quantize, parts.model->parameters());
      parts.quantizing = map.get();
      parts.map = std::move(map);
    } else {
      parts.map = std::make_unique<models::IdentityMap>();
    }
  });
  parts.objective = make_objective(context, comm, log, parts.stream->sources(), *parts.model);
  together(comm,
           [&] { parts.optimizer = train::make_optimizer(s.train.optimizer, parts.model->parameters()); });
  models::bind_working(parts.model->parameters(), *parts.map,
                       train::choose_precision(s.train.precision, comm, log, [&] { return context.tuning; }));
  return parts;
}

int64_t micro_batches_of(const recipes::DataOptions& data, int ranks) {
  const int64_t unit = data.sequence * data.micro_batch * ranks;
  check<ConfigError>(
      data.batch_tokens % unit == 0,
      "data.batch_tokens must be a multiple of sequence * micro_batch * ranks = {} * {} * {} = {}, got {}",
      data.sequence, data.micro_batch, ranks, unit, data.batch_tokens);
  return data.batch_tokens / unit;
}

// Of the model's in the newest checkpoint, where those that an objective learns stand too.
uint64_t weights_bytes(const Path& directory, const models::Parameters& parameters) {
  const auto checkpoints = train::list_checkpoints(directory / "checkpoints");
  if (checkpoints.empty()) return 0;
  uint64_t bytes = std::filesystem::file_size(checkpoints.front() / "weights.safetensors");
  for (const models::Parameter& p : parameters.unique())
    if (p.role == models::Role::kObjective) bytes -= static_cast<uint64_t>(p.numel()) * sizeof(float);
  return bytes;
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
  const recipes::Stage& s = context.stage;
  at::set_num_threads(static_cast<int>(context.threads));
  const int64_t micro_batches = micro_batches_of(s.data, comm.size());
  Parts parts = make_parts(context, comm, log);
  models::Parameters& parameters = parts.model->parameters();
  Judge judge(context, parts, comm);
  train::Trainer trainer(
      {.step = {*parts.model, *parts.map, *parts.objective, *parts.optimizer, comm},
       .stream = *parts.stream,
       .files = context.files,
       .log = log,
       .directory = context.directory,
       .recipe = context.identity,
       .facts = model_facts(parts.model->spec(), parts.text().tokenizer_name(), s.quantize, parts.generation),
       .tokenizer = data::tokenizer_files(*parts.text().tokenizer()),
       .validate = [&](int64_t done) { return judge.validate(done); },
       .stop = &context.stop,
       .resume_from = context.resume_from},
      s.train, micro_batches);
  const train::TrainReport report = trainer.run();
  StageOutcome outcome;
  outcome.preempted = report.preempted || comm.reduce(int64_t{context.stop.load()}, comm::Reduce::kMax) > 0;
  if (outcome.preempted) return outcome;
  outcome.result = parameter_counts(*parts.model);
  outcome.result.update(judge.at(s.train.steps));
  if (parts.quantizing != nullptr)
    outcome.result.update(report_training(context, *parts.model, *parts.quantizing,
                                          parts.stream->sources().front().shards, comm, log));
  if (comm.rank() != 0) return outcome;
  const Spent before = spent_before(context, s.model.init ? s.init_source() : s.model.from);
  outcome.result.update({{"file_bytes", weights_bytes(context.directory, parameters)},
                         {"steps", report.steps},
                         {"final_loss", report.final_loss},
                         {"precision", train::precision_of(parameters)},
                         {"flops_per_token", parts.model->flops_per_token(s.data.sequence)},
                         {"tokens", before.tokens + report.tokens},
                         {"seconds", before.seconds + report.seconds}});
  return outcome;
}

}  // namespace

StageOutcome train_stage(StageContext& context) {
  const KeptPages kept;
  return on_ranks(context, train_rank);
}

}  // namespace retort::launch
