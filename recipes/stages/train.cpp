// From a typed stage to a running Trainer, and what comes of it: the result is judged on the whole
// validation text. Ranks are the launch's processes, or threads of this one.
#include <ATen/Parallel.h>

#include <cmath>
#include <utility>

#include "artifacts/model_facts.h"
#include "artifacts/open_model.h"
#include "comm/together.h"
#include "core/error.h"
#include "core/kept_pages.h"
#include "distill/objectives.h"
#include "distill/on_policy.h"
#include "distill/preference.h"
#include "kernels/device_rate.h"
#include "models/on_device.h"
#include "quantize/device_fit.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
#include "recipes/on_ranks.h"
#include "recipes/preference_options.h"
#include "recipes/score.h"
#include "recipes/stages/described_tasks.h"
#include "recipes/stages/initial_model.h"
#include "recipes/stages/judge.h"
#include "recipes/stages/preference_parts.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/teachers.h"
#include "recipes/stages/train_check.h"
#include "recipes/stages/train_plan.h"
#include "recipes/stages/watch.h"
#include "train/diverged.h"
#include "train/owners.h"
#include "train/precision.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

// What packing made of each source.
void tell_packing(const data::BatchStream& stream, Log& log) {
  for (size_t i = 0; i < stream.sources().size(); ++i)
    if (const data::PackedRows* rows = stream.packed(i))
      log.info(
          "{}: {} documents in {} rows, {:.1f} % of them filled; {} split, {} cut, {} dropped, {} without a "
          "label",
          stream.sources()[i].name, rows->documents, rows->rows(), 100 * rows->filled(), rows->split,
          rows->cut, rows->dropped, rows->unlearned);
    else if (const data::AnswerRows* answers = stream.answers(i))
      log.info("{}: {} rows of {}; {} cut to {} tokens, {} left out without a label, {} left out as alike",
               stream.sources()[i].name, answers->rows(), name_of(stream.kind()), answers->cut,
               stream.options().sequence, answers->unlearned, answers->alike);
}

// Of the model's checkpoint, whose file also holds what the objective has learned.
uint64_t weights_bytes(const Path& directory, models::Parameters* learned) {
  const Path checkpoint = train::model_checkpoint(directory / "checkpoints");
  if (checkpoint.empty()) return 0;
  const uint64_t bytes = std::filesystem::file_size(checkpoint / "weights.safetensors");
  return learned == nullptr ? bytes : bytes - sizeof(float) * static_cast<uint64_t>(learned->stored());
}

// One rank's training: what it trains, made in the order of the members, and how it is judged.
class Training {
 public:
  Training(const StageContext& context, comm::Comm& comm, Log& log)
      : context_(context), stage_(context.stage), comm_(comm), log_(log) {}

  StageOutcome run() {
    at::set_num_threads(static_cast<int>(context_.threads));
    const int64_t micro_batches = micro_batches_a_rank();
    train::TrainReport report;
    name_holders("making what is trained", [&] {
      make_parts();
      set_steps();
    });
    name_holders("training", [&] { report = trainer(micro_batches).run(); });
    StageOutcome outcome;
    outcome.preempted =
        report.preempted || comm_.reduce(int64_t{context_.stop.load()}, comm::Reduce::kMax) > 0;
    if (!outcome.preempted) outcome.result = result(report);
    return outcome;
  }

 private:
  int64_t micro_batches_a_rank() const {
    const auto& data = stage_.get<DataOptions>();
    const int64_t unit = data.sequence * data.micro_batch * comm_.size();
    check<ConfigError>(
        data.batch_tokens % unit == 0,
        "data.batch_tokens must be a multiple of sequence * micro_batch * ranks = {} * {} * {} = {}, got {}",
        data.sequence, data.micro_batch, comm_.size(), unit, data.batch_tokens);
    return data.batch_tokens / unit;
  }

  void make_parts() {
    const at::NoGradGuard no_grad;
    comm::together(comm_, [&] {
      open_stream();
      make_model();
      make_map();
    });
    const at::ScalarType precision =
        context_.precision(stage_.get<train::TrainOptions>().precision, comm_, log_);
    make_objective(precision);
    models::bind_working(model_->parameters(), *map_, precision);
    bring_to_device();
    const train::Trained trained(model_->parameters(), objective_->learned());
    const train::Divided divided = train::division(stage_.get<ParallelOptions>().shard);
    check<ConfigError>(
        divided != train::Divided::kParameters || model_->weight_groups() != nullptr,
        "parallel.shard must not be parameters for model.family {}: it is no stack of layers; take gradients",
        model_->spec().family);
    const int64_t replicas = stage_.get<ParallelOptions>().replicas;
    check<ConfigError>(comm_.size() % replicas == 0, "parallel.replicas must divide the {} ranks, got {}",
                       comm_.size(), replicas);
    owners_ = std::make_unique<train::Owners>(trained, comm_, divided, model_.get(), replicas);
    if (values_) {
      comm::together(comm_, [&] { owners_->take_weights(std::exchange(values_, {})); });
      if (quantizing_ != nullptr) owners_->refresh_all(model_->parameters(), *map_);
    } else if (divided == train::Divided::kParameters) {
      owners_->divide_weights();
    }
    comm::together(comm_, [&] {
      optimizer_ = train::make_optimizer(stage_.get<train::TrainOptions>().optimizer, trained);
    });
    if (const auto& watch = stage_.get<WatchSection>())
      watch_ = std::make_unique<Watch>(context_, *watch, text().tokenizer(), ends(), model_->context(), comm_,
                                       log_);
  }

  // Where memory is refused outside of steps and validations, which train::Trainer names.
  void name_holders(const std::string& doing, const std::function<void()>& work) const {
    const auto holders = [&] {
      std::vector<train::Holder> out;
      if (model_) out = train::holders_of(model_->parameters());
      if (teacher_bytes_ > 0)
        out.push_back({"teacher", teacher_bytes_, "labels from a cache (capture) or bf16 need less"});
      return out;
    };
    train::name_holders(doing, context_.device, holders, "a device with more memory has room", work);
  }

  // All that is made from here on is made of what is there.
  void bring_to_device() {
    if (context_.device.is_cpu()) return;
    name_holders(fmt::format("bringing the model to {}", context_.device.str()), [&] {
      models::move_to(model_->parameters(), context_.device);
      if (models::Parameters* learned = objective_->learned()) models::move_to(*learned, context_.device);
    });
    if (quantizing_ == nullptr) return;
    if (const std::vector<std::string> staged = quantize::staged_grids(*quantizing_, model_->parameters());
        !staged.empty())
      log_.info("grid {}: values are made on the CPU, so that weights travel there and back once a step",
                fmt::join(staged, ", "));
  }

  void open_stream() {
    const auto& data = stage_.get<DataOptions>();
    std::vector<data::Source> sources;
    for (const SourceOptions& source : data.sources())
      sources.push_back({source.train, context_.shards(source.train, "train"), source.weight});
    stream_ = std::make_unique<data::BatchStream>(std::move(sources), batch_options(data, context_.seed()));
    tell_packing(*stream_, log_);
  }

  void make_model() {
    const auto& data = stage_.get<DataOptions>();
    StartingModel initial = initial_model(context_, stream_->sources(), starts_divided(), log_);
    values_ = std::move(initial.values);
    model_ = std::move(initial.model);
    generation_ = std::move(initial.generation);
    adapters_ = std::move(initial.adapters);
    origin_ = std::move(initial.origin);
    const std::string& from = stage_.get<ModelOptions>().from;  // whose embedding is what it is
    check<ConfigError>(!from.empty() || model_->vocabulary() >= text().vocabulary(),
                       "model.vocabulary must be at least the shards' {}, got {}", text().vocabulary(),
                       model_->vocabulary());
    for (const data::Source& source : stream_->sources())
      source.shards->check_rows(model_->vocabulary(), "model.vocabulary: " + source.name);
    model_->set_tokens(std::min(model_->vocabulary(), text().vocabulary()));
    check<ConfigError>(model_->context() >= data.sequence,
                       "data.sequence must be at most the model's context {}, got {}", model_->context(),
                       data.sequence);
  }

  bool starts_divided() const {
    const auto& parallel = stage_.get<ParallelOptions>();
    return train::division(parallel.shard) == train::Divided::kParameters &&
           comm_.size() > parallel.replicas && context_.device.is_cpu() && recipes::starts_divided(stage_);
  }

  void make_map() {
    const auto& grids = stage_.get<QuantizeSection>();
    if (!grids) {
      map_ = std::make_unique<models::IdentityMap>();
      return;
    }
    auto map = std::make_unique<quantize::QuantizeMap>(*grids, model_->parameters());
    quantizing_ = map.get();
    map_ = std::move(map);
  }

  void make_objective(at::ScalarType precision) {
    distill::ObjectiveInput input{.model = *model_,
                                  .seed = context_.seed(),
                                  .noise = {stage_.get<train::TrainOptions>().neftune, context_.seed()}};
    std::string name = "cross_entropy";
    if (const auto& options = stage_.get<DistillSection>()) {
      name = "distillation";
      MadeTeacher made = make_teacher(context_, *model_, values_, stream_->sources(), comm_, log_);
      input.teacher = std::move(made.teacher);
      teacher_bytes_ = made.bytes;
      input.losses = options->losses;
    }
    References references;
    if (const auto& preference = stage_.get<PreferenceSection>()) {
      const distill::PreferenceLoss& loss = distill::preference_losses().at(preference->loss);
      name = loss.paired() ? "pairs" : "rated";
      input.preference = *preference;
      comm::together(comm_, [&] { held_out_ = held_out_rows(context_, *model_); });
      if (loss.needs_reference)
        references = make_references(context_, *model_, values_, precision, *stream_, comm_, log_);
      input.reference = std::move(references.training);
    }
    comm::together(comm_, [&] {
      if (references.held_out)
        held_out_objective_ = distill::make_preference(std::move(references.held_out), input.preference);
      objective_ = distill::objectives().at(name).make(std::move(input));
      sample_answers();
    });
  }

  // Puts the student's own answers in the place of given ones, where the stage says so.
  void sample_answers() {
    const auto& distill = stage_.get<DistillSection>();
    if (!distill || !distill->on_policy) return;
    for (const data::Source& source : stream_->sources()) {
      const std::string misfit = prompts_misfit(source.name, source.shards->has_loss_mask());
      check<ConfigError>(distill->on_policy->prompt > 0 || misfit.empty(), "distill.on_policy.prompt {}",
                         misfit);
    }
    objective_ = distill::make_on_policy(std::move(objective_), *distill->on_policy,
                                         {.ends = ends(), .seed = context_.seed()});
  }

  std::vector<int32_t> ends() const {
    return artifacts::text_ends(generation_, model_->tokens(), text().tokenizer().get());
  }

  // As the stage says, or as many as its epochs come to.
  int64_t steps_of(const train::TrainOptions& options) const {
    if (options.epochs == 0.0) return options.steps;
    const auto& data = stage_.get<DataOptions>();
    const int64_t rows = data.batch_tokens / data.sequence;
    return std::max<int64_t>(1, (stream_->samples_of(options.epochs) + rows - 1) / rows);
  }

  void set_steps() {
    options_ = stage_.get<train::TrainOptions>();
    options_.steps = steps_of(options_);
    if (options_.epochs == 0.0) return;  // checked with the recipe
    const int64_t rows = stage_.get<DataOptions>().batch_tokens / stage_.get<DataOptions>().sequence;
    const auto at_most = [&](const char* key, int64_t step, int64_t most) {
      check<ConfigError>(step <= most, "{} must be at most {}: {} epochs are {} steps of {} rows, got {}",
                         key, most, options_.epochs, options_.steps, rows, step);
    };
    int64_t& warmup = options_.schedule.warmup;
    if (warmup == train::ScheduleOptions().warmup && warmup > options_.steps) {
      // As a rule nobody's choice, but a printed recipe has it too: cut, not refused.
      if (comm_.rank() == 0)
        log_.warn("train.schedule.warmup {} is cut to {}: {} epochs are {} steps of {} rows", warmup,
                  options_.steps, options_.epochs, options_.steps, rows);
      warmup = options_.steps;
    }
    at_most("train.schedule.warmup", warmup, options_.steps);
    if (const auto& grids = stage_.get<QuantizeSection>())
      at_most("quantize.from_step", grids->from_step, options_.steps - 1);
  }

  // Where training starts when it has no checkpoint of its own. Of shorter work: the newest that this run
  // would have come to by itself, since rates follow from the length too.
  Path start() const {
    if (!context_.resume_from.empty() || !context_.shorter) return context_.resume_from;
    if (!train::list_checkpoints(context_.directory / "checkpoints").empty()) return {};
    Stage shorter = stage_;
    kind_of(shorter).set_length(shorter, context_.shorter->length);
    const int64_t before = steps_of(shorter.get<train::TrainOptions>());
    const auto checkpoints = train::list_checkpoints(context_.shorter->checkpoints);
    for (const Path& checkpoint : checkpoints) {
      const int64_t step = std::stoll(checkpoint.filename().string().substr(5));  // step_N
      if (train::same_rates(options_.schedule, options_.optimizer.lr, step, before, options_.steps))
        return checkpoint;
    }
    if (comm_.rank() == 0)
      log_.warn(
          "train.schedule.kind {}: in {} steps no checkpoint had the learning rates of {}, so "
          "training starts over (constant goes on from the end, wsd from before its fall)",
          options_.schedule.kind, before, options_.steps);
    return {};
  }

  train::Trainer trainer(int64_t micro_batches) {
    return {
        {.step = {*model_, *map_, *objective_, *optimizer_, comm_, owners_.get(), &faults_},
         .stream = *stream_,
         .files = context_.files,
         .log = log_,
         .directory = context_.directory,
         .recipe = context_.identity,
         .facts = artifacts::model_facts({model_->spec(), text().tokenizer_name(),
                                          stage_.get<QuantizeSection>(), generation_, adapters_, origin_}),
         .tokenizer = data::tokenizer_files(*text().tokenizer()),
         .validate = [&](int64_t done) { return validate(done); },
         .best = watch_decides(stage_) ? stage_.get<WatchSection>()->best : validation_figure(),
         .higher = watch_decides(stage_) && watch_->higher_is_better(stage_.get<WatchSection>()->best),
         .stop = &context_.stop,
         .resume_from = start(),
         .flops_per_token = model_->flops_per_token(stage_.get<DataOptions>().sequence),
         .ceiling = ceiling(),
         .profile = context_.profile,
         .teacher_bytes = teacher_bytes_,
         .strict = context_.strict},
        options_,
        micro_batches};
  }

  // What products of the model's dtype reach: those of all threads of each process, or of a device each rank.
  double ceiling() const {
    const bool bf16 = train::precision_of(model_->parameters()) == "bf16";
    if (!context_.device.is_cpu())
      return comm_.size() * kernels::measured_rate(context_.device, bf16 ? at::kBFloat16 : at::kFloat);
    const kernels::CpuTuning tuning = context_.tuning();
    return 1e9 * context_.comm.size() * (bf16 ? tuning.bf16_gflops : tuning.fp32_gflops);
  }

  // That of the validation text, or of held-out answers: of a text with a loss mask there are no bits per
  // byte.
  std::string validation_figure() const {
    if (held_out_) return "preference_loss";
    const std::string& validation = stage_.get<DataOptions>().validation;
    if (validation.empty()) return "";
    return context_.shards(validation, "validation")->has_loss_mask() ? "perplexity" : "bits_per_byte";
  }

  std::map<std::string, double> validate(int64_t done) {
    std::map<std::string, double> figures;
    score(done);
    if (held_out_)
      figures = scores_.get<std::map<std::string, double>>();
    else if (const std::string name = validation_figure(); !name.empty())
      figures[name] = scores_.at(name).get<double>();
    if (!watch_ || !watch_->due(done, options_.steps)) return figures;
    look(done);
    watch_->sample(*model_, *map_, *owners_, done);
    for (const auto& [name, value] : watched_.items()) figures[name] = value.get<double>();
    return figures;
  }

  void score(int64_t done) {
    if (scored_ != done) scores_ = held_out_ ? score_held_out() : score_text();
    scored_ = done;
  }
  formats::Json score_held_out() {
    const distill::HeldOutScore score =
        distill::score_held_out(held_out_objective_ ? *held_out_objective_ : *objective_, *model_, *held_out_,
                                context_.device, comm_);
    if (owners_->gathered() != nullptr) owners_->gathered()->forget();
    return held_out_figures(score);
  }
  formats::Json score_text() {
    const auto& data = stage_.get<DataOptions>();
    if (data.validation.empty()) return formats::Json::object();
    const auto text = context_.shards(data.validation, "validation");
    return score_json(score_f32(*model_, *map_, *text, data.sequence, comm_, 0, owners_.get()),
                      data.sequence);
  }
  void look(int64_t done) {
    if (watch_ && looked_ != done) watched_ = watch_->figures(*model_, *map_, *owners_, done);
    looked_ = done;
  }

  // What the report shows; the last validation's figures when it was just there.
  formats::Json result(const train::TrainReport& report) {
    formats::Json out = parameter_counts(*model_);
    score(report.model_step);
    train::refuse_diverged({model_->parameters(), objective_->learned()},
                           scores_.value(held_out_ ? "preference_loss" : "nats", 0.0), report.model_step,
                           options_, comm_);
    look(report.model_step);
    out.update(scores_);
    out.update(watched_);
    if (quantizing_ != nullptr) {
      if (owners_->weights_divided()) owners_->make_weights_whole();
      out.update(
          report_training(context_, *model_, *quantizing_, stream_->sources().front().shards, comm_, log_));
    }
    if (comm_.rank() != 0) return out;
    const auto& model = stage_.get<ModelOptions>();
    const Spent before = spent_before(context_, model.init ? init_source(stage_) : model.from);
    out.update({{"file_bytes", weights_bytes(context_.directory, objective_->learned())},
                {"steps", report.steps},
                {"precision", train::precision_of(model_->parameters())},
                {"flops_per_token", model_->flops_per_token(stage_.get<DataOptions>().sequence)},
                {"tokens", before.tokens + report.tokens},
                {"seconds", before.seconds + report.seconds}});
    if (!std::isnan(report.final_loss)) out["final_loss"] = report.final_loss;
    if (report.unlabelled > 0) out["steps_without_labels"] = report.unlabelled;
    return out;
  }

  const data::TokenShards& text() const { return *stream_->sources().front().shards; }

  const StageContext& context_;
  const Stage& stage_;
  comm::Comm& comm_;
  Log& log_;
  std::unique_ptr<data::BatchStream> stream_;
  std::unique_ptr<models::Model> model_;
  models::ParameterValues values_;  // of a model that starts divided
  formats::Json generation_;
  std::optional<artifacts::AdapterFacts> adapters_;
  artifacts::Origin origin_;
  std::unique_ptr<models::WeightMap> map_;
  quantize::QuantizeMap* quantizing_ = nullptr;  // the map, when it is one
  std::unique_ptr<train::Objective> objective_;
  std::unique_ptr<distill::AnswerBatches> held_out_;      // nullptr: a text, or nothing
  std::unique_ptr<train::Objective> held_out_objective_;  // nullptr: the training's
  std::unique_ptr<train::Owners> owners_;
  std::unique_ptr<train::Optimizer> optimizer_;
  uint64_t teacher_bytes_ = 0;
  train::TrainOptions options_;
  Injection faults_ = Injection::from_environment();
  std::unique_ptr<Watch> watch_;                     // nullptr: nothing
  formats::Json watched_ = formats::Json::object();  // of the model as it was after looked_ steps
  int64_t looked_ = -1;
  formats::Json scores_;  // of the model as it was after that many steps
  int64_t scored_ = -1;
};

StageOutcome train_rank(StageContext& context, comm::Comm& comm, Log& log) {
  return Training(context, comm, log).run();
}

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = {model_input(stage)};
  const auto& init = stage.get<ModelOptions>().init;
  if (init && init->from != "teacher") out.push_back({"model.init.from", init->from, Thing::kModel});
  for (Input& source : training_inputs(stage)) out.push_back(std::move(source));
  out.push_back(validation_input(stage));
  if (watch_decides(stage))
    for (Input& input : watch_inputs(*stage.get<WatchSection>())) out.push_back(std::move(input));
  const auto& distill = stage.get<DistillSection>();
  if (!distill) return out;
  const std::string key = distill->teachers.empty() ? "distill.teacher." : "distill.teachers.";
  for (const TeacherOptions& teacher : distill->all_teachers()) {
    out.push_back({key + "model", teacher.model, Thing::kModel});
    for (const std::string& cache : teacher.cache) out.push_back({key + "cache", cache, Thing::kCache});
  }
  return out;
}

// Ranks, the cut into micro-batches, and how a run is watched and kept, move no weight beyond rounding.
void forget(Stage& stage) {
  const train::TrainOptions usual;
  auto& train = stage.get<train::TrainOptions>();
  if (train.epochs > 0) train.steps = usual.steps;
  train.log_every = usual.log_every;
  if (!watch_decides(stage)) stage.get<WatchSection>().reset();
  if (!train.keep_best && train.patience == 0) train.validate_every = usual.validate_every;
  train.checkpoint_every = usual.checkpoint_every;
  train.keep_checkpoints = usual.keep_checkpoints;
  train.save = usual.save;
  if (train.guard) train.guard->compare_every = train::GuardOptions().compare_every;
  if (train.guard && train.guard->zscore == 0.0 && !train.guard->rerun && train.guard->rollbacks == 0)
    train.guard.reset();  // nothing of it decides
  if (!train.guard || train.guard->rollbacks == 0) train.max_skipped = usual.max_skipped;
  train.max_failed_saves = usual.max_failed_saves;
  auto& preference = stage.get<PreferenceSection>();
  if (preference) preference->precompute = false;  // the same numbers beyond rounding
  const auto* loss = preference ? distill::preference_losses().find(preference->loss) : nullptr;
  const auto& distill = stage.get<DistillSection>();
  // The baseline is of a micro-batch, and answers are sampled together.
  if ((loss == nullptr || loss->baseline == nullptr) && (!distill || !distill->on_policy))
    stage.get<DataOptions>().micro_batch = DataOptions().micro_batch;
  stage.get<ParallelOptions>() = {};
}

double length(const Stage& stage) {
  const auto& train = stage.get<train::TrainOptions>();
  return train.epochs > 0 ? train.epochs : static_cast<double>(train.steps);
}

void set_length(Stage& stage, double length) {
  auto& train = stage.get<train::TrainOptions>();
  if (train.epochs > 0)
    train.epochs = length;
  else
    train.steps = static_cast<int64_t>(length);
}

std::vector<std::string> train_figures() {
  std::vector<std::string> names = {"bits_per_weight",  "packed_bytes",    "kl",
                                    "agreement",        "steps",           "final_loss",
                                    "flops_per_token",  "preference_loss", "preference_accuracy",
                                    "preference_margin"};
  for (std::string& figure : shipped_figures()) names.push_back(std::move(figure));
  return model_figures(names);
}

StageOutcome run(StageContext& context) {
  const KeptPages kept;
  return on_ranks(context, train_rank);
}

}  // namespace

StageKind train_stage() {
  return {
      .name = "train",
      .doc =
          "pretrain, fine-tune, distil (with distill), learn preferences (with preference) or train for a "
          "grid "
          "(with quantize)",
      .sections =
          {model_section(), data_section(), section_kind<train::TrainOptions>("train", "how long and how"),
           section_kind<DistillSection>("distill", "learn from a teacher; without it: cross-entropy"),
           section_kind<PreferenceSection>(
               "preference", "learn from answers that were compared or rated, instead of a text's labels"),
           section_kind<AdapterSection>(
               "adapters", "low-rank adapters on a frozen model.from; without it: all of it is trained"),
           section_kind<WatchSection>("watch", "tasks and samples of the model as it is trained"),
           quantize_section(), parallel_section()},
      .makes = Thing::kModel,
      .figures = train_figures(),
      .continues = true,
      .resumes = true,
      .seeded = true,
      .inputs = inputs,
      .check = check_train_stage,
      .forget = forget,
      .length = length,
      .set_length = set_length,
      .plan = train_plan,
      .run = run};
}

}  // namespace retort::recipes
