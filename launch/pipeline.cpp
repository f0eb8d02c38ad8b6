#include "launch/pipeline.h"

#include <algorithm>

#include "core/digest.h"
#include "core/error.h"
#include "launch/stage_directory.h"
#include "launch/stages.h"
#include "launch/together.h"
#include "recipes/print_section.h"

namespace retort::launch {
namespace {

namespace fs = std::filesystem;
using formats::Json;

std::string digest_of_file(const Path& path) {
  Digest digest;
  digest.add(MappedFile::open(path)->bytes());
  return hex(digest.value());
}

// Files outside the run: too large to read whole, so their names, sizes and times speak for them.
std::string outside_state(const Path& path) {
  std::vector<std::string> lines;
  const auto add = [&](const fs::path& file) {
    lines.push_back(fmt::format("{} {} {}\n", file.string(), fs::file_size(file),
                                fs::last_write_time(file).time_since_epoch().count()));
  };
  if (fs::is_regular_file(path)) add(path);
  if (fs::is_directory(path))
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) add(entry.path());
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, ""));
}

// The shards are opened before anything is moved for the stage, and must be of one vocabulary.
void open_shards_of(const StageContext& context) {
  const recipes::Stage& stage = context.stage;
  std::shared_ptr<const data::TokenShards> training, validation;
  if (recipes::reads_training_text(stage))
    for (const recipes::SourceOptions& source : stage.data.sources())
      training = open_shards(context, source.train, "train");
  const bool judges = stage.kind == "train" || stage.kind == "quantize" ||
                      (stage.kind == "export" && stage.exporting.evaluate);
  if (judges && !stage.data.validation.empty())
    validation = open_shards(context, stage.data.validation, "validation");
  check<DataError>(
      !training || !validation || training->tokenizer_fingerprint() == validation->tokenizer_fingerprint(),
      "data.validation: {} was made with tokenizer {}, the training text with {}", stage.data.validation,
      validation ? validation->tokenizer_name() : "", training ? training->tokenizer_name() : "");
}

void print_product(const StageContext& context, const StageBody& body) {
  if (body.product.empty() || context.comm.rank() != 0) return;
  fmt::print("{}", read_text(context.directory / body.product));
  std::fflush(stdout);
}

class Pipeline {
 public:
  Pipeline(const recipes::Recipe& recipe, const PipelineOptions& options, comm::Comm& comm, FileSystem& files,
           Log& log, const std::atomic<bool>& stop)
      : recipe_(recipe),
        options_(options),
        comm_(comm),
        files_(files),
        log_(log),
        stop_(stop),
        run_(recipe.run.dir) {}

  ExitCode run() {
    try {
      if (!options_.resume_from.empty()) resumed_ = stage_to_resume(recipe_, options_.resume_from);
      const std::vector<std::string> wanted = recipes::needed_for(recipe_, options_.only);
      for (const recipes::Stage& stage : recipe_.stages) {
        if (!options_.only.empty() && std::find(wanted.begin(), wanted.end(), stage.name) == wanted.end())
          continue;
        stage_ = stage.name;
        const bool stopped = comm_.reduce(int64_t{stop_.load()}, comm::Reduce::kMax) > 0;
        if (!stopped && run_stage(stage)) continue;
        log_.info("stopped in stage {}; run the same command again to continue", stage.name);
        write_exit(ExitCode::kPreempted, "stopped by a signal");
        return ExitCode::kPreempted;
      }
    } catch (...) {
      const Error error = as_error(std::current_exception());
      write_exit(error.code(), error.what());
      throw;
    }
    stage_.clear();
    write_exit(ExitCode::kDone, "");
    return ExitCode::kDone;
  }

 private:
  // False when it was stopped.
  bool run_stage(const recipes::Stage& stage) {
    const StageBody& body = stage_bodies().at(stage.kind);
    const Path directory = run_ / stage.name;
    std::string hash;
    StageWork work;
    const std::string planned = text_from_rank_zero(comm_, [&] {
      hash = stage_hash(recipe_, stage, run_);
      if (stage.name == resumed_)
        hash = hex(xxh3(hash + digest_of_file(options_.resume_from / "manifest.json")));
      work = find_work(directory, hash, body.continues, options_.anew);
      return std::to_string(static_cast<int>(work.plan));
    });
    const auto plan = static_cast<Plan>(std::stoi(planned));
    const int count = static_cast<int>(&stage - recipe_.stages.data()) + 1;
    log_.info("[{}/{}] {} ({}){}", count, recipe_.stages.size(), stage.name, stage.kind,
              plan == Plan::kSkip ? ": done already" : "");
    Log stage_log(stderr,
                  comm_.size() > 1 && comm_.rank() > 0 ? fmt::format("rank {}: ", comm_.rank()) : "  ",
                  log_.quiet());
    StageContext context{recipe_,
                         stage,
                         run_,
                         directory,
                         stage_identity(recipe_, stage),
                         comm_,
                         options_.threads,
                         options_.tuning,
                         files_,
                         stage_log,
                         stop_,
                         stage.name == resumed_ ? options_.resume_from : Path()};
    on_rank_zero(comm_, [&] {
      if (plan != Plan::kFresh) take_back(work, directory, files_, log_);
      if (plan == Plan::kContinue) sweep(directory, files_);
      if (plan != Plan::kFresh) return;
      open_shards_of(context);
      put_aside(directory, context.identity, options_.anew, files_, log_);
      if (!body.continues) return;
      files_.make_directories(directory);
      write_json(files_, directory / "stage.json", {{"hash", hash}, {"recipe", context.identity}});
    });
    if (plan != Plan::kSkip) {
      StageOutcome outcome = body.run(context);
      if (outcome.preempted) return false;
      on_rank_zero(comm_, [&] {
        Json result = {{"hash", hash}, {"stage", stage.name}, {"kind", stage.kind}};
        result.update(outcome.result);
        write_json(files_, directory / "result.json", result);
      });
    }
    print_product(context, body);
    return true;
  }

  void write_exit(ExitCode code, const std::string& message) {
    if (comm_.rank() != 0) return;
    const Json exit = {{"code", static_cast<int>(code)}, {"stage", stage_}, {"message", message}};
    try {
      write_json(files_, run_ / "exit.json", exit);
    } catch (const Error& error) {
      log_.warn("{}", error.what());
    }
  }

  const recipes::Recipe& recipe_;
  const PipelineOptions& options_;
  comm::Comm& comm_;
  FileSystem& files_;
  Log& log_;
  const std::atomic<bool>& stop_;
  Path run_;
  std::string stage_, resumed_;
};

}  // namespace

std::string stage_identity(const recipes::Recipe& recipe, const recipes::Stage& stage) {
  recipes::Stage same = stage;
  same.parallel = {};
  const train::TrainOptions usual;  // how a run is watched and kept moves no weight
  same.train.log_every = usual.log_every;
  same.train.validate_every = usual.validate_every;
  same.train.checkpoint_every = usual.checkpoint_every;
  same.train.keep_checkpoints = usual.keep_checkpoints;
  same.train.max_skipped = usual.max_skipped;
  same.train.max_failed_saves = usual.max_failed_saves;
  same.prepare.text.clear();      // what files hold counts, not their names
  if (stage.kind == "capture") {  // labels are found by a token's place, whatever the shape of batches
    same.data = recipes::DataOptions();
    same.data.train = stage.data.train;
    same.data.sequence = stage.data.sequence;
    same.data.isolate_documents = stage.data.isolate_documents;
  }
  return fmt::format("# one stage, resolved; run.seed: {}\n{}", recipe.run.seed,
                     recipes::print_section(same));
}

std::string stage_hash(const recipes::Recipe& recipe, const recipes::Stage& stage, const Path& run) {
  std::string text = stage_identity(recipe, stage);
  if (stage.kind == "prepare" || stage.kind == "tokenizer")
    for (const std::string& path : stage.text(recipe.run))
      text += fmt::format("text {}\n", digest_of_file(path));
  std::vector<std::string> inputs = recipes::inputs_of(stage);
  if (stage.kind == "report" && inputs.empty())  // it reads whatever came before
    for (const recipes::Stage& other : recipe.stages) {
      if (other.name == stage.name) break;
      inputs.push_back(other.name);
    }
  for (const std::string& input : inputs)
    text += fmt::format("stage {} {}\n", input, digest_of_file(run / input / "result.json"));
  std::vector<std::string> outside = {stage.model.from, stage.init_source(),
                                      stage.kind == "capture" ? "" : stage.data.validation};
  for (const recipes::SourceOptions& source : stage.data.sources()) outside.push_back(source.train);
  if (stage.distill)
    for (const recipes::TeacherOptions& teacher : stage.distill->all_teachers()) {
      outside.push_back(teacher.model);
      outside.insert(outside.end(), teacher.cache.begin(), teacher.cache.end());
    }
  for (const std::string& path : outside)
    if (!path.empty() && !recipes::stage_of(path) && !recipes::preset_of(path)) text += outside_state(path);
  return hex(xxh3(text));
}

std::string stage_to_resume(const recipes::Recipe& recipe, const Path& checkpoint) {
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
  for (const recipes::Stage& stage : recipe.stages)
    if (stage.kind == "train") names.push_back(stage.name);
  const std::string own = fs::weakly_canonical(checkpoint).parent_path().parent_path().filename();
  if (std::find(names.begin(), names.end(), own) != names.end()) return own;
  check<ConfigError>(names.size() == 1,
                     "--resume {}: none of the recipe's training stages is called \"{}\" (it has {})",
                     checkpoint.string(), own, fmt::join(names, ", "));
  return names.front();
}

ExitCode run_pipeline(const recipes::Recipe& recipe, const PipelineOptions& options, comm::Comm& comm,
                      FileSystem& files, Log& log, const std::atomic<bool>& stop) {
  std::optional<DirectoryLock> lock;
  on_rank_zero(comm, [&] {
    check<ConfigError>(options.only.empty() || !recipes::needed_for(recipe, options.only).empty(),
                       "the recipe has no stage of kind {}", options.only);
    if (!options.resume_from.empty()) stage_to_resume(recipe, options.resume_from);
    files.make_directories(recipe.run.dir);
    check_own(recipe);
    lock.emplace(recipe.run.dir);
    files.remove_all(Path(recipe.run.dir) / "exit.json");  // an earlier start's end is not this one's
    sweep(recipe.run.dir, files);
    write_durably(files, Path(recipe.run.dir) / "recipe.yaml", recipes::print_section(recipe));
  });
  return Pipeline(recipe, options, comm, files, log, stop).run();
}

}  // namespace retort::launch
