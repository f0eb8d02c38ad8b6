#include "train/trainer.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "comm/agreement.h"
#include "comm/step_watch.h"
#include "comm/together.h"
#include "core/digest.h"
#include "core/error.h"
#include "data/prefetcher.h"
#include "models/on_device.h"
#include "train/metrics.h"
#include "train/precision.h"
#include "train/profiled_steps.h"
#include "train/replicas.h"
#include "train/state_shares.h"

namespace retort::train {
namespace {

using formats::Json;

constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kProgress = "progress.json";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds trained so far. Training does not depend on this file, so a damaged one counts as 0.
double seconds_of(const Path& progress) {
  try {
    return formats::json_real(formats::read_json(progress), "seconds", progress.string());
  } catch (const Error&) {
    return 0.0;
  }
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "an unknown host";
}

// Makes working values of masters that have been loaded.
void refresh(const StepParts& parts) {
  if (parts.owners != nullptr)
    parts.owners->refresh_all(parts.model.parameters(), parts.map);
  else
    models::refresh_working(parts.model.parameters(), parts.map);
}

std::vector<data::Batch> take(data::Prefetcher& prefetcher, int64_t count) {
  std::vector<data::Batch> batches;
  for (int64_t i = 0; i < count; ++i) batches.push_back(prefetcher.next());
  return batches;
}

}  // namespace

Trainer::Trainer(TrainerParts parts, TrainOptions options, int64_t micro_batches)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      micro_batches_(micro_batches),
      position_(parts_.stream, parts_.step.comm.size() * micro_batches),
      saver_(parts_.files, parts_.ranges, parts_.step.comm, parts_.directory / kCheckpoints,
             options_.keep_checkpoints, options_.save) {
  RETORT_ASSERT(micro_batches > 0);
  parts_.step.graphs = options_.graph;
  parts_.step.log = &parts_.log;
}

TrainReport Trainer::run() {
  RunState state = restore();
  compare_ranks(state);
  comm::Comm& comm = parts_.step.comm;
  if (state.step >= options_.steps || exhausted(state)) {
    const Path own = checkpoint_path(parts_.directory / kCheckpoints, state.step);
    const bool elsewhere = comm.rank() == 0 && !std::filesystem::exists(own);  // it was another run's end
    if (comm.reduce(int64_t{elsewhere}, comm::Reduce::kMax) != 0) save(state, true);
    return finished(state);
  }
  Ended ended;
  while ((ended = train(state)) == Ended::kGoesBack) state = go_back(state);
  return ended == Ended::kPreempted ? report(state, true) : finished(state);
}

// Up to the end, a stop, or the step after which the run goes back.
Trainer::Ended Trainer::train(RunState& state) {
  comm::Comm& comm = parts_.step.comm;
  const MicroBatches numbers(comm, micro_batches_, parts_.step.owners);
  std::unique_ptr<Metrics> metrics;
  if (comm.rank() == 0) metrics = open_metrics(state, numbers.all());
  // A stop does not wait for a validation that is due, so a run that continues begins with it.
  const bool validated =
      comm.reduce(int64_t{metrics && metrics->has_validation(state.step)}, comm::Reduce::kMax);
  if (state.step > 0 && due(state.step, options_.validate_every) && !validated)
    validate(state, metrics.get());

  if (parts_.step.owners != nullptr) parts_.step.owners->divide_weights();
  TrainStep train_step(parts_.step, micro_batches_, options_.clip_norm);
  const auto number_of = [&](int64_t k) {
    return k / micro_batches_ * numbers.all() + numbers.number(k % micro_batches_);
  };
  data::Prefetcher prefetcher(parts_.stream, number_of, state.step * micro_batches_);
  bool preempted = false, goes_back = false;
  ProfiledSteps profiled(
      parts_, train_step, [&] { return holders(&train_step); }, options_.steps - state.step);
  comm::StepWatch watch(comm.flight(), parts_.log);
  while (state.step < options_.steps && !preempted && !goes_back && !exhausted(state)) {
    const auto start = std::chrono::steady_clock::now();
    watch.begin(state.step + 1);
    const std::vector<data::Batch> batches = take(prefetcher, micro_batches_);
    profiled.begin_step();
    const StepStats stats = take_step(train_step, state, batches);
    profiled.end_step();
    state.seconds += seconds_since(start);
    watch.end();
    goes_back = !goes_on(state, stats, metrics.get());
    if (goes_back) continue;

    preempted = stop_requested() && state.step < options_.steps;
    if (!preempted && due(state.step, options_.validate_every)) validate(state, metrics.get());
    const bool last = preempted || state.step == options_.steps || exhausted(state);
    const bool best = options_.keep_best && state.best.step == state.step;
    if (last || best || due(state.step, options_.checkpoint_every)) {
      if (metrics) metrics->sync();
      save(state, last);
    }
  }
  profiled.end_run();
  if (metrics) metrics->finish();
  if (Owners* owners = parts_.step.owners; owners != nullptr && owners->gathered() == nullptr)
    owners->make_weights_whole();
  return goes_back ? Ended::kGoesBack : preempted ? Ended::kPreempted : Ended::kDone;
}

// What a step came to, in the records and for the save under way. False: the run goes back.
bool Trainer::goes_on(RunState& state, const StepStats& stats, Metrics* metrics) {
  try {
    account(state, stats, metrics);
  } catch (const NonFiniteError&) {  // on every rank; the last checkpoint is to be whole
    await_save(state);
    throw;
  }
  hear_of_save(state);
  if (stats.skipped && stats.measured() && state.guard.exceeded()) {
    await_save(state);
    refuse_more(state);
    return false;
  }
  const int64_t every = options_.guard ? options_.guard->compare_every : 0;
  if (every > 0 && state.step % every == 0)
    compare_replicas(parts_.step.comm, state.step, replicated_weights(parts_.step));
  return true;
}

std::unique_ptr<Metrics> Trainer::open_metrics(const RunState& state, int64_t micro_batches) const {
  const data::BatchOptions& batch = parts_.stream.options();
  return std::make_unique<Metrics>(
      parts_.files, parts_.log, parts_.directory, state.step,
      MetricsOptions{options_.steps, options_.log_every,
                     static_cast<double>(micro_batches * batch.rows * batch.sequence),
                     parts_.step.objective.part_names(), parts_.step.objective.counted().name, state.tokens,
                     state.seconds, parts_.flops_per_token, parts_.ceiling});
}

StepStats Trainer::take_step(TrainStep& step, const RunState& state,
                             const std::vector<data::Batch>& batches) {
  const double lr = learning_rate(options_.schedule, options_.optimizer.lr, state.step, options_.steps);
  StepStats left_out;
  left_out.step = state.step, left_out.lr = lr, left_out.skipped = true;
  if (state.guard.leaves_out(state.step)) return left_out;
  StepStats stats;
  const int64_t rows = parts_.stream.options().rows;
  name_holders(
      fmt::format("step {}", state.step + 1), models::device_of(parts_.step.model.parameters()),
      [&] { return holders(&step); },
      rows > 1 ? fmt::format("data.micro_batch below {} makes a step need less, at the same result", rows)
               : "a shorter data.sequence makes a step need less",
      [&] { stats = step.run(state.step, batches, lr, state.guard.limits()); });
  return stats;
}

// With teachers, graphs, and the copy of a save, which lies in the host's memory. step: nullptr: there is none.
std::vector<Holder> Trainer::holders(const TrainStep* step) const {
  std::vector<Holder> out = holders_of(parts_.step, micro_batches_);
  if (parts_.teacher_bytes > 0)
    out.push_back({"teacher", parts_.teacher_bytes, "labels from a cache (capture) or bf16 need less"});
  if (step != nullptr && step->graph_bytes() > 0)
    out.push_back({"graph", step->graph_bytes(), "train.graph: false needs none"});
  if (saver_.copied_bytes() > 0 && models::device_of(parts_.step.model.parameters()).is_cpu())
    out.push_back({"saves", saver_.copied_bytes(), "train.save: sync needs none"});
  std::ranges::stable_sort(out, std::greater(), &Holder::bytes);
  return out;
}

TrainReport Trainer::finished(const RunState& state) {
  if (options_.keep_best) take_best(state);
  return report(state, false);
}

bool Trainer::exhausted(const RunState& state) const {
  return options_.patience > 0 && state.best.since >= options_.patience;
}

// The best checkpoint lies with this run's. One of the run that this one goes on from is copied; where that is gone there is
// no best so far.
void Trainer::adopt_best(RunState& state, const Path& source) {
  if (!options_.keep_best || !state.best.known()) return;
  const Path own = parts_.directory / kCheckpoints, best = checkpoint_path(own, state.best.step);
  comm::together(parts_.step.comm, [&] {
    if (parts_.step.comm.rank() != 0) return;
    const Path old = checkpoint_path(source.parent_path(), state.best.step);
    if (!std::filesystem::exists(best) && std::filesystem::exists(old))
      adopt_checkpoint(parts_.files, old, own);
  });
  const bool there = parts_.step.comm.rank() != 0 || std::filesystem::exists(best);
  if (parts_.step.comm.all_agree(there)) return;
  if (parts_.step.comm.rank() == 0)
    parts_.log.warn(
        "the checkpoint of step {}, which had the best validation figure, is gone; the best of the steps to "
        "come counts",
        state.best.step);
  state.best = {.counted = state.best.counted};
}

// The model becomes that of the best checkpoint.
void Trainer::take_best(const RunState& state) {
  if (!state.best.known() || state.best.step == state.step) return;
  const auto best = load_model_checkpoint(parts_.directory / kCheckpoints, parts_.log);
  check<CheckpointError>(best && best->step == state.best.step,
                         "[train] {}: the checkpoint of the lowest validation figure, step {}, is gone",
                         (parts_.directory / kCheckpoints).string(), state.best.step);
  copy_weights(*best, parts_.step.model.parameters());
  parts_.step.map.begin_step(state.best.step - 1);
  refresh(parts_.step);
}

// Moves the state past a step and reports the step.
void Trainer::account(RunState& state, const StepStats& stats, Metrics* metrics) {
  const data::BatchOptions& batch = parts_.stream.options();
  ++state.step;
  state.tokens += parts_.step.comm.size() * micro_batches_ * batch.rows * batch.sequence;
  if (metrics) metrics->step(stats, {state.tokens, state.seconds, position_.epochs(state.step)});
  if (!stats.at_fault.empty()) tell_fault(stats);
  if (!stats.measured()) {
    if (!stats.skipped) account_unlabelled(state, metrics != nullptr);
    return;
  }
  state.guard.take(stats);
  if (!stats.skipped)
    state.loss = stats.loss;
  else if (metrics)
    parts_.log.warn(
        "step {}: loss or gradient is {} (loss {}, norm {}); the update was skipped on all ranks", state.step,
        std::isfinite(stats.loss) && std::isfinite(stats.gradient_norm) ? "a spike" : "not finite",
        stats.loss, stats.gradient_norm);
}

// The ranks whose machines computed one step in two ways. It may happen once.
void Trainer::tell_fault(const StepStats& stats) {
  comm::Comm& comm = parts_.step.comm;
  std::string who;
  for (const int rank : stats.at_fault)
    who +=
        fmt::format("{}rank {} on {}", who.empty() ? "" : ", ", rank, comm.broadcast_text(host_name(), rank));
  const std::string what = fmt::format(
      "step {}: computed once more, it came out otherwise on {}: memory or a processor there is at fault",
      stats.step + 1, who);
  if (std::exchange(faulty_, true))
    throw comm::SharedError(
        "[train] " + what + ", for the second time; checkpoints so far, if any, are whole", kFaultyMachine,
        comm.rank() == 0);
  if (comm.rank() == 0) parts_.log.warn("{}; the second result counts", what);
}

// Too many skipped in a row, and no way back.
void Trainer::refuse_more(const RunState& state) const {
  check<NonFiniteError>(
      state.guard.may_go_back(),
      "[train] step {}: loss or gradient was not finite, or a spike, in {} steps in a row; "
      "checkpoints so far, if any, are whole: lower train.optimizer.lr or look at the data of these steps",
      state.step, state.guard.in_a_row());
}

// The state of a checkpoint before the steps that are left out from now on. Which one does not matter: the steps in between
// give the same bits again.
RunState Trainer::go_back(const RunState& state) {
  const LeftOut out = state.guard.around();
  const Path directory = parts_.directory / kCheckpoints;
  const auto checkpoint =
      load_latest_checkpoint(directory, parts_.log, parts_.step.comm, out.first, parts_.strict);
  check<NonFiniteError>(
      checkpoint.has_value(),
      "[train] step {}: {} steps in a row were skipped, and there is no checkpoint of step {} or before to "
      "go back to: raise train.keep_checkpoints, or lower train.checkpoint_every or train.guard.margin",
      state.step, state.guard.in_a_row(), out.first);
  RunState back = continued(*checkpoint);
  back.guard.leave_out(state.guard);
  back.seconds = state.seconds;
  if (parts_.step.comm.rank() == 0)
    parts_.log.warn("{} steps in a row were skipped: going back to step {}, and steps {} to {} are left out",
                    state.guard.in_a_row(), back.step, out.first + 1, out.end);
  return back;
}

// Said at the first one, and with their share at the end: a recipe whose windows miss the answers goes on.
void Trainer::account_unlabelled(RunState& state, bool speaks) {
  if (++state.unlabelled == 1 && speaks)
    parts_.log.warn("step {}: its batch has no {} on any rank, so nothing is learned in it", state.step,
                    parts_.step.objective.counted().name);
}

void Trainer::validate(RunState& state, Metrics* metrics) {
  if (!parts_.validate) return;
  Owners* owners = parts_.step.owners;
  const bool whole = owners != nullptr && owners->weights_divided() && owners->gathered() == nullptr;
  if (whole) owners->make_weights_whole();
  std::map<std::string, double> figures;
  name_holders(
      fmt::format("validation after step {}", state.step), models::device_of(parts_.step.model.parameters()),
      [&] { return holders(nullptr); }, "a shorter data.sequence makes scoring need less",
      [&] { figures = parts_.validate(state.step); });
  if (whole) owners->divide_weights();
  if (metrics) metrics->validation(state.step, figures);
  const auto chosen = parts_.best.empty() ? figures.begin() : figures.find(parts_.best);
  if (chosen == figures.end() || !watches_best()) return;
  state.best.take(parts_.higher ? -chosen->second : chosen->second, state.step);
}

bool Trainer::watches_best() const { return options_.keep_best || options_.patience > 0; }

// ---- Stopping and saving

bool Trainer::stop_requested() {
  const bool mine = parts_.stop != nullptr && parts_.stop->load();
  return parts_.step.comm.reduce(int64_t{mine}, comm::Reduce::kMax) != 0;
}

bool Trainer::due(int64_t done, int64_t every) const {
  return done == options_.steps || (every > 0 && done % every == 0);
}

// `last`: no later save will make up for a failure.
void Trainer::save(RunState& state, bool last) {
  const auto since = Saver::Clock::now();
  comm::Comm& comm = parts_.step.comm;
  await_save(state);
  if (Injection* faults = parts_.step.faults)
    faults->strike(InjectionPoint::kSave, comm.rank(), state.step - 1);
  compare_replicas(comm, state.step, replicated_weights(parts_.step));
  const Trained trained(parts_.step.model.parameters(), parts_.step.objective.learned());
  StateShares shares = shares_of(trained, parts_.step.optimizer, parts_.step.owners, comm);
  CheckpointContent content{.step = state.step,
                            .extra = facts_of(state),
                            .recipe = parts_.recipe,
                            .tokenizer = parts_.tokenizer,
                            .weights = std::move(shares.weights),
                            .optimizer = std::move(shares.optimizer),
                            .shares = std::move(shares.shares),
                            .best = options_.keep_best ? state.best.step : -1};
  const auto committed = [this, step = state.step, seconds = state.seconds](double stall) {
    const Json progress{{"step", step}, {"seconds", seconds}, {"save_stall_seconds", stall}};
    write_durably(parts_.files, parts_.directory / kProgress, progress.dump() + "\n");
  };
  saver_.start(std::move(content), since, committed);
  if (last || !saver_.in_background()) await_save(state, last);
}

void Trainer::await_save(RunState& state, bool last) {
  if (saver_.under_way()) settle(state, saver_.finish(), last);
}

void Trainer::hear_of_save(RunState& state) {
  if (!saver_.under_way()) return;
  if (const auto result = saver_.poll()) settle(state, *result, false);
}

// All learn whether it worked.
void Trainer::settle(RunState& state, const SaveResult& result, bool last) {
  if (result.failure.empty()) {
    state.failed_saves = 0;
    return;
  }
  ++state.failed_saves;
  check<IoError>(!last && state.failed_saves < options_.max_failed_saves,
                 "[train] the checkpoint of step {} could not be saved ({} in a row): {}", result.step,
                 state.failed_saves, result.failure);
  if (parts_.step.comm.rank() == 0)
    parts_.log.warn("the checkpoint of step {} could not be saved, training goes on: {}", result.step,
                    result.failure);
}

Json Trainer::facts_of(const RunState& state) const {
  Json facts = parts_.facts.is_null() ? Json::object() : parts_.facts;
  Json& train = facts["train"] = Json::object();
  state.write(train, options_.keep_best);
  train["batch"] = position_.batch();
  train["sources"] = position_.sources(state.step);
  train["precision"] = precision_of(parts_.step.model.parameters());
  return facts;
}

TrainReport Trainer::report(const RunState& state, bool preempted) const {
  if (state.unlabelled > 0 && parts_.step.comm.rank() == 0)
    parts_.log.warn(
        "{} of {} steps ({:.0f} %) had no {} in their batches and were no updates; longer windows "
        "(data.sequence) or larger batches (data.batch_tokens) reach more of them",
        state.unlabelled, state.step,
        100.0 * static_cast<double>(state.unlabelled) / static_cast<double>(state.step),
        parts_.step.objective.counted().name);
  const bool best = options_.keep_best && state.best.known() && !preempted;
  return {state.step,
          state.tokens,
          state.seconds,
          state.loss,
          state.unlabelled,
          preempted,
          best ? state.best.step : state.step};
}

// ---- Starting

RunState Trainer::restore() {
  if (parts_.step.comm.rank() == 0) parts_.files.make_directories(parts_.directory);
  auto checkpoint = load_latest_checkpoint(parts_.directory / kCheckpoints, parts_.log, parts_.step.comm,
                                           INT64_MAX, parts_.strict);
  if (!checkpoint && !parts_.resume_from.empty()) checkpoint = load_checkpoint(parts_.resume_from);
  if (!checkpoint) return {.guard = new_guard()};
  RunState state = continued(*checkpoint);
  if (parts_.step.comm.rank() == 0) {
    parts_.log.info("continuing from {}", checkpoint->path.string());
    const Path own = parts_.directory / kCheckpoints;
    try {
      if (checkpoint->path.parent_path() == own)
        finish_save(parts_.files, own, state.step, options_.keep_checkpoints,
                    options_.keep_best ? state.best.step : -1);
    } catch (const IoError& error) {
      parts_.log.warn("the last save could not be finished: {}", error.what());
    }
  }
  adopt_best(state, checkpoint->path);
  return state;
}

// Takes over a checkpoint's weights and state.
RunState Trainer::continued(const LoadedCheckpoint& checkpoint) {
  copy_weights(checkpoint, parts_.step.model.parameters());
  if (models::Parameters* learned = parts_.step.objective.learned()) copy_learned(checkpoint, *learned);
  parts_.step.optimizer.set_state(checkpoint.optimizer);
  RunState state{.guard = new_guard()};
  state.step = checkpoint.step;
  if (state.step > 0) parts_.step.map.begin_step(state.step - 1);
  const std::string source = checkpoint.path.string();
  try {
    const Json& train = checkpoint.extra.at("train");
    state.read(train, source);
    if (!watches_best()) state.best = {};
    const Json now = position_.batch();
    check<ConfigError>(
        train.at("batch") == now || state.step >= options_.steps,
        "[train] {} was made with batches of {}, this run has {}: continue with the same, or start "
        "a new run in another directory",
        source, train.at("batch").dump(), now.dump());
    refresh_in(formats::json_text(train, "precision", source), source);
  } catch (const Json::exception& error) {
    fail<CheckpointError>("{}: {}", source, error.what());
  }
  state.seconds = seconds_of(checkpoint.path.parent_path().parent_path() / kProgress);
  return state;
}

Guard Trainer::new_guard() const { return {options_.guard.value_or(GuardOptions()), options_.max_skipped}; }

// Replicas that begin apart stay apart: each applies the common gradient to weights of its own.
void Trainer::compare_ranks(const RunState& state) {
  comm::Comm& comm = parts_.step.comm;
  if (comm.size() == 1) return;
  comm::must_agree(comm, {{"the step to begin with", std::to_string(state.step)},
                          {"the weights", hex(digest_of(replicated_weights(parts_.step)))},
                          {"the optimizer's state", hex(digest_of(shared_state(parts_.step)))},
                          {"the data", position_.batch().dump()},
                          {"the stage's recipe", hex(xxh3(parts_.recipe))}});
}

// Makes the working copies of the restored masters. A precision that `auto` has chosen stays: another would
// give other bits.
void Trainer::refresh_in(const std::string& precision, const std::string& source) {
  models::Parameters& parameters = parts_.step.model.parameters();
  const std::string here = precision_of(parameters);
  if (precision != here && options_.precision == "auto") {
    if (parts_.step.comm.rank() == 0)
      parts_.log.info("precision {}, as {} was trained in", precision, source);
    Owners* const owners = parts_.step.owners;
    const bool divided = owners != nullptr && owners->weights_divided();
    if (divided) owners->make_weights_whole();
    models::bind_working(parameters, parts_.step.map, dtype_of(precision));
    if (divided) owners->divide_weights();
    return;
  }
  if (precision != here && parts_.step.comm.rank() == 0)
    parts_.log.warn("{} was trained in {}, this run continues in {}", source, precision, here);
  refresh(parts_.step);
}

}  // namespace retort::train
