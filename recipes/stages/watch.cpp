#include "recipes/stages/watch.h"

#include <algorithm>
#include <sstream>

#include "comm/together.h"
#include "core/error.h"
#include "eval/complete.h"
#include "recipes/score.h"
#include "recipes/stages/described_tasks.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

using formats::Json;

constexpr const char* kSamples = "samples.jsonl";

EvaluateOptions evaluate_options(const WatchOptions& options) {
  EvaluateOptions out;
  out.tasks = options.tasks, out.data = options.data;
  out.documents = options.documents, out.shots = options.shots;
  return out;
}

// The lines of steps before `done`; what a crash has cut off goes too.
std::string lines_before(const Path& path, int64_t done) {
  std::string out;
  std::error_code none;
  if (!std::filesystem::exists(path, none)) return out;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) {
    try {
      if (formats::json_integer(formats::parse_json(line, kSamples), "step", kSamples) >= done) break;
    } catch (const DataError&) {
      break;
    }
    out += line + "\n";
  }
  return out;
}

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void WatchOptions::describe(Section& s) {
  s.field("tasks", tasks,
          "described tasks to score at validations: names of shipped descriptions, or paths (.yaml); their "
          "figures join the validation's as TASK.METRIC");
  s.field("data", data, "folder of the files that descriptions name; the description's own when left out");
  s.field("documents", documents, "documents of each task, from its start; 0: all", at_least<int64_t>(0));
  s.field("shots", shots, "examples before each prompt; -1: as many as the description says",
          between<int64_t>(-1, 1000));
  s.field("every", every, "steps between looks, a multiple of train.validate_every; 0: at every validation",
          at_least<int64_t>(0));
  s.field(
      "best", best,
      "figure by which train.keep_best and train.patience choose, TASK.METRIC; that of data.validation when "
      "left out");
  s.field("prompts", prompts, "texts to complete at the same steps, for the log and samples.jsonl");
  sampling.describe(s);
}

bool watch_decides(const Stage& stage) {
  const auto& watch = stage.get<WatchSection>();
  const auto& train = stage.get<train::TrainOptions>();
  return watch && !watch->best.empty() && (train.keep_best || train.patience > 0);
}

std::vector<Input> watch_inputs(const WatchOptions& options) {
  std::vector<Input> out = described_inputs(evaluate_options(options));
  for (Input& input : out) input.key = input.key == "evaluate.data" ? "watch.data" : "watch.tasks";
  return out;
}

std::vector<std::string> watched_figures(const WatchOptions& options) {
  std::vector<std::string> out;
  for (const std::string& name : options.tasks) try {
      for (std::string& figure : figures_of(read_task(name, options.data).spec))
        out.push_back(std::move(figure));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): the check and the run say what is wrong
    }
  return out;
}

Watch::Watch(const StageContext& context, const WatchOptions& options,
             std::unique_ptr<data::Tokenizer> tokenizer, std::vector<int32_t> ends, int64_t reads,
             comm::Comm& comm, Log& log)
    : context_(context),
      options_(options),
      tokenizer_(std::move(tokenizer)),
      ends_(std::move(ends)),
      comm_(comm),
      log_(log) {
  options_.sampling.seed = context.seed();
  comm::together(comm_, [&] { tasks_ = open_described(evaluate_options(options_), "watch.data"); });
  std::erase_if(options_.prompts, [&](const std::string& prompt) {
    const std::string misfit = eval::prompt_misfit(*tokenizer_, prompt, reads);
    if (!misfit.empty() && comm_.rank() == 0) log_.warn("watch.prompts: {}; it is left out", misfit);
    return !misfit.empty();
  });
}

bool Watch::due(int64_t done, int64_t steps) const {
  return done == steps || options_.every == 0 || done % options_.every == 0;
}

Json Watch::figures(models::Model& model, models::WeightMap& map, const train::Owners& owners, int64_t done) {
  if (tasks_.empty()) return Json::object();
  const auto passes = [&](const Error& error) {
    if (error.code() == ExitCode::kCommunication || watch_decides(context_.stage)) return false;
    if (comm_.rank() == 0) log_.warn("watch.tasks: step {}: {}; training goes on", done, error.what());
    return true;
  };
  try {
    return answer(model, map, owners);
  } catch (const comm::SharedError& error) {  // all ranks have heard of it
    if (!passes(error)) throw;
  } catch (...) {
    if (comm_.size() > 1 || !passes(comm::as_error(std::current_exception()))) throw;
  }
  return Json::object();
}

Json Watch::answer(models::Model& model, models::WeightMap& map, const train::Owners& owners) {
  Json out = Json::object();
  const F32Values values(model, map, comm_, &owners);
  const eval::TaskRun run{.model = values.model(),
                          .tokenizer = *tokenizer_,
                          .comm = values.comm(),
                          .prompts = {.folder = {}, .documents = options_.documents, .chat = {}},
                          .ends = ends_,
                          .window = 0,
                          .resamples = 0};
  for (const eval::TaskResult& task : answer_described(tasks_, run))
    for (const eval::MetricResult& metric : task.metrics)
      out[figure_name(task.spec.task, metric)] = metric.value;
  return out;
}

void Watch::sample(models::Model& model, models::WeightMap& map, const train::Owners& owners, int64_t done) {
  if (options_.prompts.empty()) return;
  std::unique_ptr<F32Values> values;
  if (comm_.rank() == 0 || owners.gathered() != nullptr)
    values = std::make_unique<F32Values>(model, map, comm_, &owners);
  comm::on_rank_zero(values ? values->comm() : comm_, [&] {
    try {
      complete(values->model(), done);
    } catch (...) {
      const Error error = comm::as_error(std::current_exception());
      if (error.code() == ExitCode::kCommunication) throw;
      log_.warn("watch.prompts: step {}: {}; training goes on", done, error.what());
    }
  });
}

void Watch::complete(models::Model& model, int64_t done) {
  const auto texts = eval::complete(model, *tokenizer_, options_.prompts, options_.sampling, {}, ends_);
  const Path path = context_.directory / kSamples;
  std::string lines = lines_before(path, done);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string& prompt = options_.prompts[i];
    lines += line_of({{"step", done}, {"prompt", prompt}, {"text", texts[i].text}}) + "\n";
    log_.info("step {}  {} {}", done, line_of(prompt), line_of(texts[i].text));
  }
  write_durably(context_.files, path, lines);
}

bool Watch::higher_is_better(const std::string& figure) const {
  for (const DescribedTask& task : tasks_)
    for (const auto& [name, higher] : directions_of(task.spec))
      if (name == figure) return higher;
  return false;
}

}  // namespace retort::recipes
