#include "recipes/pipeline.h"

#include <algorithm>
#include <cstdlib>

#include "comm/together.h"
#include "core/digest.h"
#include "core/inject.h"
#include "recipes/identity.h"
#include "recipes/inputs.h"
#include "recipes/print_section.h"
#include "recipes/ranks_agree.h"
#include "recipes/stage_context.h"
#include "recipes/stage_directory.h"
#include "train/checkpoint.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;
using formats::Json;

// A stage's place in the run, and what is to be done there.
struct Job {
  const Stage& stage;
  Path directory;
  std::string hash, identity;
  StageWork work = {};
};

class Pipeline {
 public:
  Pipeline(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm, FileSystem& files,
           Log& log, const std::atomic<bool>& stop)
      : recipe_(recipe), options_(options), comm_(comm), files_(files), log_(log), stop_(stop) {
    if (Injection::from_environment().any())  // refused here, before any work, where it is not understood
      log_.warn("RETORT_INJECT is set: this run breaks on purpose, and is of no other use ({})",
                std::getenv("RETORT_INJECT"));
  }

  ExitCode run() {
    try {
      if (!options_.resume_from.empty()) resumed_ = stage_to_resume(recipe_, options_.resume_from);
      const std::vector<std::string> wanted = needed_for(recipe_, options_.only);
      for (const Stage& stage : recipe_.stages) {
        if (!options_.only.empty() && std::find(wanted.begin(), wanted.end(), stage.name) == wanted.end())
          continue;
        if (lacks_input(stage)) continue;
        stage_ = stage.name;
        const bool stopped = comm_.reduce(int64_t{stop_.load()}, comm::Reduce::kMax) > 0;
        if (!stopped && run_or_leave_out(stage)) continue;
        log_.info("stopped in stage {}; run the same command again to continue", stage.name);
        write_exit(ExitCode::kPreempted, "stopped by a signal");
        return ExitCode::kPreempted;
      }
    } catch (const comm::SharedError& error) {
      write_exit(error.code(), error.what());
      throw;
    } catch (const NonFiniteError& error) {  // a step is told, of whichever stage
      write_failure(error);
      fail<NonFiniteError>("stage {}: {}", stage_, error.what());
    } catch (...) {
      write_failure(comm::as_error(std::current_exception()));
      throw;
    }
    stage_ = fmt::format("{}", fmt::join(left_out_, ", "));
    const ExitCode code = left_out_.empty() ? ExitCode::kDone : ExitCode::kNonFinite;
    write_exit(code, left_out_.empty()
                         ? ""
                         : "left out: their numbers are not finite, or those of a stage that they need");
    return code;
  }

 private:
  // A report is of the stages that ended, and names the others.
  bool lacks_input(const Stage& stage) {
    const std::vector<Input> inputs = inputs_of(recipe_, stage);
    if (std::ranges::all_of(inputs, [](const Input& input) { return input.thing == Thing::kResult; }))
      return false;
    for (const std::string& input : stages_before(recipe_, stage)) {
      if (std::find(left_out_.begin(), left_out_.end(), input) == left_out_.end()) continue;
      log_.warn(
          "{} is left out: it needs {}, which has no result; the claim's own table is of the stages that "
          "ended",
          stage.name, input);
      left_out_.push_back(stage.name);
      return true;
    }
    return false;
  }

  // False when it was stopped.
  bool run_or_leave_out(const Stage& stage) {
    try {
      return run_stage(stage);
    } catch (const Error& error) {  // of every rank alike: their numbers are the same
      if (!options_.past_non_finite || error.code() != ExitCode::kNonFinite) throw;
      log_.warn("{} is left out: {}", stage.name, error.what());
      left_out_.push_back(stage.name);
      return true;
    }
  }

  // False when it was stopped.
  bool run_stage(const Stage& stage) {
    Job job{stage, Path(recipe_.run.dir) / stage.name, {}, stage_identity(recipe_, stage)};
    const Plan plan = plan_of(job);
    const int count = static_cast<int>(&stage - recipe_.stages.data()) + 1;
    log_.info("[{}/{}] {} ({}){}", count, recipe_.stages.size(), stage.name, stage.kind(),
              plan == Plan::kSkip ? ": done already" : "");
    if (plan == Plan::kSkip && options_.profile > 0 && kind_of(stage).resumes)
      log_.warn("--profile: {} is done already, so that no step of it is left; --resume never starts over",
                stage.name);
    comm::on_rank_zero(comm_, [&] { make_way(job, plan); });
    if (plan != Plan::kSkip) compare_inputs(job);
    if (plan != Plan::kSkip && !do_stage(job)) return false;
    print_product(job);
    return true;
  }

  // A rank that sees other files, on a disk of its own, would train on something else than its peers.
  void compare_inputs(const Job& job) {
    comm::Facts facts;
    comm::together(comm_, [&] {
      if (comm_.size() > 1) facts = input_facts(recipe_, job.stage);
    });
    comm::must_agree(comm_, facts);
  }

  Plan plan_of(Job& job) {
    const std::string planned = comm::text_from_rank_zero(comm_, [&] {
      job.hash = stage_hash(recipe_, job.stage);
      if (job.stage.name == resumed_)
        job.hash = hex(xxh3(job.hash + digest_of_file(options_.resume_from / "manifest.json")));
      job.work = find_work(job.directory, job.hash, kind_of(job.stage).continues, options_.start_over);
      return std::to_string(static_cast<int>(job.work.plan));
    });
    return static_cast<Plan>(std::stoi(planned));
  }

  void make_way(const Job& job, Plan plan) {
    if (plan != Plan::kFresh) take_back(job.work, job.directory, files_, log_);
    if (plan == Plan::kContinue) sweep(job.directory, files_);
    if (plan != Plan::kFresh) return;
    open_all_shards(recipe_, job.stage);  // before anything is moved for the stage
    const double shorter = shorter_length(job);
    const Path aside = put_aside(job.directory, job.identity,
                                 options_.start_over ? Aside::kStartOver
                                 : shorter == 0      ? Aside::kChanged
                                                     : Aside::kLonger,
                                 files_, log_);
    if (!kind_of(job.stage).continues) return;
    BegunWork begun{job.hash, job.identity, length_of(job.stage)};
    if (shorter > 0) begun.from = (aside.filename() / "checkpoints").string(), begun.from_length = shorter;
    files_.make_directories(job.directory);
    write_begun(files_, job.directory, begun);
  }

  static double length_of(const Stage& stage) {
    return kind_of(stage).length == nullptr ? 0 : kind_of(stage).length(stage);
  }

  // Of work in the stage's place that is the same but shorter, and has a checkpoint; 0 when there is none.
  double shorter_length(const Job& job) const {
    const auto begun = begun_work(job.directory);
    if (options_.start_over || job.stage.name == resumed_ || !begun || begun->length == 0 ||
        begun->length >= length_of(job.stage))
      return 0;
    Stage shorter = job.stage;
    kind_of(shorter).set_length(shorter, begun->length);
    const auto checkpoints = train::list_checkpoints(job.directory / "checkpoints");
    const bool same = !checkpoints.empty() && stage_hash(recipe_, shorter) == begun->hash;
    return same ? begun->length : 0;
  }

  std::optional<ShorterWork> shorter_work(const Job& job) const {
    const auto begun = begun_work(job.directory);
    if (!begun || begun->from.empty()) return std::nullopt;
    const Path from = Path(recipe_.run.dir) / begun->from;
    return fs::exists(from) ? std::optional(ShorterWork{begun->from_length, from}) : std::nullopt;
  }

  bool do_stage(const Job& job) {
    Log stage_log(stderr,
                  comm_.size() > 1 && comm_.rank() > 0 ? fmt::format("rank {}: ", comm_.rank()) : "  ",
                  log_.quiet());
    std::string product;
    StageContext context{.recipe = recipe_,
                         .stage = job.stage,
                         .run = recipe_.run.dir,
                         .directory = job.directory,
                         .identity = job.identity,
                         .comm = comm_,
                         .threads = options_.threads,
                         .tuning = [this] { return options_.tuning; },
                         .device = options_.device,
                         .files = files_,
                         .log = stage_log,
                         .stop = stop_,
                         .resume_from = job.stage.name == resumed_ ? options_.resume_from : Path(),
                         .shorter = shorter_work(job),
                         .print =
                             [&](std::string_view text) {
                               product += text;
                               return true;
                             },
                         .strict = options_.strict,
                         .profile = options_.profile};
    const StageOutcome outcome = kind_of(job.stage).run(context);
    if (outcome.preempted) return false;
    comm::on_rank_zero(comm_, [&] {
      files_.make_directories(job.directory);
      if (const std::string& file = kind_of(job.stage).product; !file.empty())
        write_durably(files_, job.directory / file, product);
      Json result = {{"hash", job.hash}, {"stage", job.stage.name}, {"kind", job.stage.kind()}};
      result.update(outcome.result);
      write_json(files_, job.directory / "result.json", result);
    });
    return true;
  }

  void print_product(const Job& job) const {
    const std::string& file = kind_of(job.stage).product;
    if (file.empty() || comm_.rank() != 0) return;
    fmt::print("{}", read_text(job.directory / file));
    std::fflush(stdout);
  }

  // A rank that fails alone says so before its peers lose it, and what they say of that does not take its
  // place.
  void write_failure(const Error& error) {
    const bool lost = error.code() == ExitCode::kCommunication;
    if (lost && fs::exists(Path(recipe_.run.dir) / "exit.json")) return;
    write_exit(error.code(), error.what(), !lost);
  }

  void write_exit(ExitCode code, const std::string& message, bool any_rank = false) {
    if (comm_.rank() != 0 && !any_rank) return;
    const Json exit = {{"code", static_cast<int>(code)}, {"stage", stage_}, {"message", message}};
    try {
      write_json(files_, Path(recipe_.run.dir) / "exit.json", exit);
    } catch (const Error& error) {
      log_.warn("{}", error.what());
    }
  }

  const Recipe& recipe_;
  const PipelineOptions& options_;
  comm::Comm& comm_;
  FileSystem& files_;
  Log& log_;
  const std::atomic<bool>& stop_;
  std::string stage_, resumed_;
  std::vector<std::string> left_out_;  // stages, past_non_finite
};

}  // namespace

std::string stage_to_resume(const Recipe& recipe, const Path& checkpoint) {
  check<ConfigError>(fs::is_regular_file(checkpoint / "manifest.json"),
                     "--resume {}: must be a checkpoint, a directory with a manifest.json",
                     checkpoint.string());
  const Path below =
      fs::weakly_canonical(checkpoint).lexically_relative(fs::weakly_canonical(recipe.run.dir));
  check<ConfigError>(below.empty() || *below.begin() == "..",
                     "--resume {}: must not lie in the run's own directory {}; give the new run another with "
                     "--set run.dir=DIR",
                     checkpoint.string(), recipe.run.dir);
  std::vector<std::string> names;
  for (const Stage& stage : recipe.stages)
    if (kind_of(stage).resumes) names.push_back(stage.name);
  const std::string own = fs::weakly_canonical(checkpoint).parent_path().parent_path().filename();
  if (std::find(names.begin(), names.end(), own) != names.end()) return own;
  check<ConfigError>(names.size() == 1,
                     "--resume {}: none of the recipe's training stages is called \"{}\" (it has {})",
                     checkpoint.string(), own, fmt::join(names, ", "));
  return names.front();
}

ExitCode run_pipeline(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm,
                      FileSystem& files, Log& log, const std::atomic<bool>& stop) {
  std::optional<DirectoryLock> lock;
  comm::on_rank_zero(comm, [&] {
    check<ConfigError>(options.only.empty() || !needed_for(recipe, options.only).empty(),
                       "the recipe has no stage of kind {}", options.only);
    if (!options.resume_from.empty()) stage_to_resume(recipe, options.resume_from);
    files.make_directories(recipe.run.dir);
    check_own(recipe);
    lock.emplace(recipe.run.dir);
    files.remove_all(Path(recipe.run.dir) / "exit.json");  // an earlier start's end is not this one's
    std::vector<std::string> stages;
    for (const Stage& stage : recipe.stages) stages.push_back(stage.name);
    sweep(recipe.run.dir, files, stages);
    write_durably(files, Path(recipe.run.dir) / "recipe.yaml", print_section(recipe));
  });
  return Pipeline(recipe, options, comm, files, log, stop).run();
}

}  // namespace retort::recipes
