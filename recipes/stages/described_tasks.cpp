#include "recipes/stages/described_tasks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <map>

#include "comm/together.h"
#include "core/error.h"
#include "core/table.h"
#include "data/templates/chat.h"
#include "data/templates/opened.h"
#include "eval/results_json.h"
#include "eval/task.h"

namespace retort::recipes {
namespace {

DescribedTask read_described(const std::string& name, const EvaluateOptions& options) {
  DescribedTask task = read_task(name, options.data);
  if (options.shots >= 0) task.spec.num_fewshot = options.shots;
  return task;
}

std::tm utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return parts;
}

// 2026-11-28T13-05-59: a name that sorts by time.
std::string now_as_name() {
  const std::tm parts = utc_now();
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%S", &parts)};
}

// A prompt as the one message of a conversation, up to where the assistant answers.
eval::ChatPrompt chat_prompt(std::shared_ptr<const data::OpenedTemplate> form) {
  return [form](const std::string& system, const std::string& user) {
    data::Chat chat;
    if (!system.empty()) chat.messages.push_back({{"role", "system"}, {"content", system}});
    chat.messages.push_back({{"role", "user"}, {"content", user}});
    chat.special = form->special;
    chat.generation_prompt = true;
    if (form->form.asks_date()) chat.now = utc_now();
    return data::render(form->form, chat).text;
  };
}

std::string with_underscores(std::string name) {
  for (size_t at = 0; (at = name.find('/', at)) != name.npos; at += 2) name.replace(at, 1, "__");
  return name;
}

}  // namespace

std::vector<std::string> described_names(const EvaluateOptions& options) {
  std::vector<std::string> out;
  for (const std::string& name : options.tasks)
    if (eval::tasks().find(name) == nullptr) out.push_back(name);
  return out;
}

std::vector<Input> described_inputs(const EvaluateOptions& options) {
  std::vector<Input> out;
  for (const std::string& name : described_names(options)) {
    if (is_task_file(name)) out.push_back({"evaluate.tasks", name, Thing::kFile});
    try {
      const DescribedTask task = read_described(name, options);
      for (const std::string& file : task.spec.all_files())
        out.push_back({"evaluate.data", (task.folder / file).string(), Thing::kFile});
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): the check and the run say what is wrong
    }
  }
  return out;
}

std::string described_misfit(const EvaluateOptions& options) {
  std::map<std::string, std::string> places;  // of each task's name
  for (const std::string& name : described_names(options)) {
    try {
      const std::string task = read_described(name, options).spec.task;
      const auto [place, fresh] = places.emplace(task, name);
      if (!fresh)
        return fmt::format(
            "{} and {} are both the task {}: their figures would have one name; give one another `task:`",
            place->second, name, task);
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): whoever opens it says what is wrong
    }
  }
  return "";
}

std::string missing_file(const DescribedTask& task, const std::string& key) {
  std::error_code ignored;
  for (const std::string& file : task.spec.all_files())
    if (!std::filesystem::is_regular_file(task.folder / file, ignored))
      return fmt::format("[task {}] {}: no such file; {} is the folder of such files", task.spec.task,
                         (task.folder / file).string(), key);
  return "";
}

std::vector<DescribedTask> open_described(const EvaluateOptions& options, const std::string& key) {
  const std::string misfit = described_misfit(options);
  check<ConfigError>(misfit.empty(), "[evaluate.tasks] {}", misfit);
  std::vector<DescribedTask> out;
  for (const std::string& name : described_names(options)) {
    out.push_back(read_described(name, options));
    const std::string missing = missing_file(out.back(), key);  // before hours of work on the tasks before it
    check<IoError>(missing.empty(), "{}", missing);
  }
  return out;
}

std::vector<eval::TaskResult> answer_described(const std::vector<DescribedTask>& tasks, eval::TaskRun run) {
  std::vector<eval::TaskResult> out;
  for (const DescribedTask& task : tasks) {
    run.prompts.folder = task.folder;
    out.push_back(eval::run_task(task.spec, run));
  }
  return out;
}

ModelAnswers run_described(const StageContext& context, const artifacts::OpenedModel& model) {
  const auto& options = context.stage.get<EvaluateOptions>();
  const auto begun = std::chrono::steady_clock::now();
  ModelAnswers out;
  out.source = model.source;
  if (described_names(options).empty()) return out;
  std::vector<DescribedTask> tasks;
  std::shared_ptr<const data::OpenedTemplate> chat;
  comm::together(context.comm, [&] {
    tasks = open_described(options, "evaluate.data (--data)");
    if (!options.chat.empty())
      chat = std::make_shared<data::OpenedTemplate>(
          data::open_template(options.chat == "model" ? model.source : options.chat));
  });
  if (chat) out.chat_template = chat->text;
  check<ConfigError>(options.max_length <= model.decoder->context(),
                     "evaluate.max_length (--max-length) must be at most the model's context, {}, got {}",
                     model.decoder->context(), options.max_length);
  const eval::TaskRun run{.model = *model.decoder,
                          .tokenizer = model.need_tokenizer(),
                          .comm = context.comm,
                          .prompts = {.folder = {},
                                      .documents = options.documents,
                                      .chat = chat ? chat_prompt(chat) : eval::ChatPrompt()},
                          .ends = model.ends(),
                          .window = options.max_length,
                          .resamples = options.bootstrap};
  out.tasks = answer_described(tasks, run);
  for (const eval::TaskResult& task : out.tasks)
    context.log.info("{}: {} of {} documents", task.spec.task, task.prompts.size(), task.documents);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return out;
}

std::string figure_name(const std::string& task, const eval::MetricResult& metric) {
  return task + "." + metric.metric + (metric.filter == "none" ? "" : "." + metric.filter);
}

std::vector<std::pair<std::string, bool>> directions_of(const eval::TaskSpec& spec) {
  std::vector<std::pair<std::string, bool>> out;
  for (const eval::MetricSpec& metric : eval::metrics_of(spec))
    for (const eval::FilterSpec& filter :
         spec.filter_list.empty() ? std::vector<eval::FilterSpec>(1) : spec.filter_list)
      out.emplace_back(figure_name(spec.task, {.metric = metric.metric, .filter = filter.name, .scores = {}}),
                       metric.higher_is_better);
  return out;
}

std::vector<std::string> figures_of(const eval::TaskSpec& spec) {
  std::vector<std::string> out;
  for (auto& [name, higher] : directions_of(spec)) out.push_back(name);
  return out;
}

std::vector<std::string> shipped_figures() {
  std::vector<std::string> out;
  for (const std::string& name : shipped_task_names())
    for (std::string& figure : figures_of(read_task(name, "").spec)) out.push_back(std::move(figure));
  return out;
}

std::string comparison_table(const std::vector<eval::Difference>& differences, const std::string& first,
                             const std::string& second) {
  std::vector<std::vector<std::string>> rows = {{"figure", "documents", first, second, "difference", "95 %",
                                                 "only first, only second", "test", "p", "p (Holm)"}};
  for (const eval::Difference& one : differences)
    rows.push_back({one.task + " " + one.metric, fmt::format("{}", one.documents),
                    fmt::format("{:.4f}", one.first), fmt::format("{:.4f}", one.second),
                    fmt::format("{:+.4f}", one.second - one.first),
                    fmt::format("{:+.4f} to {:+.4f}", one.low, one.high),
                    one.only_first < 0 ? "-" : fmt::format("{}, {}", one.only_first, one.only_second),
                    one.test, fmt::format("{:.4g}", one.p), fmt::format("{:.4g}", one.corrected_p)});
  return markdown_table(rows);
}

void write_results(const StageContext& context, const artifacts::OpenedModel& model,
                   const ModelAnswers& answers) {
  const bool alone = context.alone();
  if (answers.tasks.empty() || (alone && context.outs.empty())) return;
  const auto& options = context.stage.get<EvaluateOptions>();
  const std::string name = with_underscores(Path(answers.source).relative_path().string());
  const std::string time = alone ? "_" + now_as_name() : "";
  const Path folder = (alone ? context.outs.front() : context.directory) / name;
  context.files.make_directories(folder);
  eval::RunFacts facts{.model = answers.source,
                       .dtype = "torch.float32",
                       .parameters = model.decoder->parameters().stored(),
                       .window = options.max_length > 0 ? options.max_length : model.decoder->context(),
                       .limit = options.documents,
                       .resamples = options.bootstrap,
                       .date = fmt::format("{}", std::time(nullptr)),
                       .chat_template = answers.chat_template,
                       .seconds = answers.seconds};
  const formats::Json results = eval::results_json(answers.tasks, facts);
  write_durably(context.files, folder / fmt::format("results{}.json", time),
                results.dump(2, ' ', false, formats::Json::error_handler_t::replace) + "\n");
  for (const eval::TaskResult& task : answers.tasks)
    write_durably(context.files, folder / fmt::format("samples_{}{}.jsonl", task.spec.task, time),
                  eval::sample_lines(task));
}

}  // namespace retort::recipes
