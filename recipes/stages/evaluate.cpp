// Tasks on any MODEL (eval/task.h): their figures in result.json, with the standard error of each as
// FIGURE_error, and as a table.
#include "recipes/stages/evaluate.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "artifacts/identify.h"
#include "artifacts/text_shards.h"
#include "comm/together.h"
#include "core/errno_text.h"
#include "core/kept_pages.h"
#include "core/table.h"
#include "data/prepare.h"
#include "data/templates/shipped.h"
#include "eval/task.h"
#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/model_memory.h"
#include "recipes/model_options.h"
#include "recipes/score.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/described_tasks.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/second_model.h"
#include "recipes/task_files.h"

namespace retort::recipes {
namespace {

// A second model: what it is called, whose key is evaluate.NOUN, and the task that it is named for.
struct Second {
  std::string noun;
  std::string EvaluateOptions::*address;
  const char* task;
};
const std::vector<Second>& seconds() {
  static const std::vector<Second> rows = {{"drafter", &EvaluateOptions::drafter, "drafting"},
                                           {"reference", &EvaluateOptions::reference, "divergence"}};
  return rows;
}

// A text file, or token shards.
Input text_input(const Stage& stage) {
  const std::string& text = stage.get<EvaluateOptions>().text;
  if (text.empty()) return validation_input(stage);
  std::error_code ignored;
  const bool shards = stage_of(text) || std::filesystem::is_directory(text, ignored);
  return {"evaluate.text", text, shards ? Thing::kShards : Thing::kText, "validation"};
}

// The rows of eval::tasks() that the stage runs: a second model is named to be measured.
std::vector<std::string> rows_of(const EvaluateOptions& options) {
  std::vector<std::string> out;
  for (const std::string& name : options.tasks)
    if (eval::tasks().find(name) != nullptr) out.push_back(name);
  for (const Second& second : seconds())
    if (!(options.*second.address).empty() && std::find(out.begin(), out.end(), second.task) == out.end())
      out.emplace_back(second.task);
  return out;
}

bool need_text(const EvaluateOptions& options) {
  const std::vector<std::string> rows = rows_of(options);
  return std::any_of(rows.begin(), rows.end(), [&](const std::string& name) {
    const eval::Task& task = eval::tasks().at(name);
    return std::find(task.needs.begin(), task.needs.end(), eval::Needs::kText) != task.needs.end();
  });
}

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  const auto& options = stage.get<EvaluateOptions>();
  std::vector<Input> out = {model_input(stage)};
  if (!options.against.empty()) out.push_back({"evaluate.against", options.against, Thing::kModel});
  for (const Second& second : seconds())
    if (!(options.*second.address).empty())
      out.push_back({"evaluate." + second.noun, options.*second.address, Thing::kModel});
  if (!options.chat.empty() && options.chat != "model")
    out.push_back({"evaluate.chat", options.chat, Thing::kTemplate});
  if (need_text(options)) out.push_back(text_input(stage));
  for (Input& input : described_inputs(options)) out.push_back(std::move(input));
  return out;
}

// Tokens of a window; without data.sequence what all these contexts hold.
int64_t window_of(int64_t sequence, const std::vector<int64_t>& contexts) {
  return sequence > 0 ? sequence
                      : std::min(int64_t{2048}, *std::min_element(contexts.begin(), contexts.end()));
}

void check_lengths(StageCheck& check) {
  const auto& options = check.stage.get<EvaluateOptions>();
  const auto spec = check.model_spec();
  if (!spec) return;
  if (options.max_length > spec->context)
    check.add(
        {"evaluate.max_length", "model.from"},
        fmt::format("must be at most the model's context, {}, got {}", spec->context, options.max_length));
  const int64_t sequence = check.stage.get<DataOptions>().sequence;
  std::vector<int64_t> contexts = {spec->context};
  for (const Second& second : seconds()) {
    if ((options.*second.address).empty()) continue;
    const auto other = spec_of(check.recipe, options.*second.address);
    if (!other) continue;
    contexts.push_back(other->context);
    if (sequence > other->context)
      check.add(
          {"data.sequence", "evaluate." + second.noun},
          fmt::format("must be at most the {}'s context, {}, got {}", second.noun, other->context, sequence));
  }
  const int64_t window = window_of(sequence, contexts);
  if (!options.drafter.empty() && options.drafted > window)
    check.add({"evaluate.drafted", "data.sequence"},
              fmt::format("must be at most {}, the tokens of a window, got {}", window, options.drafted));
}

// As far as both tokenizers are known before the run.
void check_second(StageCheck& check, const Second& row) {
  const std::string& address = check.stage.get<EvaluateOptions>().*row.address;
  if (address.empty()) return;
  const auto second = tokenizer_of(check.recipe, address),
             first = tokenizer_of(check.recipe, check.stage.get<ModelOptions>().from);
  if (!second || !first) return;
  const std::string misfit = vocabulary_misfit(row.noun, *second, *first);
  if (!misfit.empty())
    check.add({"evaluate." + row.noun, "model.from"},
              "must have the model's vocabulary, for a token to mean the same: " + misfit);
}

// Whether there is a described task among the names.
bool asks_prompts(const EvaluateOptions& options) {
  const std::vector<std::string> names = described_names(options), shipped = shipped_task_names();
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return is_task_file(name) || std::find(shipped.begin(), shipped.end(), name) != shipped.end();
  });
}

// For a text file, and for prompts.
void check_tokenizers(StageCheck& check) {
  const auto& options = check.stage.get<EvaluateOptions>();
  const bool text = need_text(options) && text_input(check.stage).thing == Thing::kText;
  const char* key = text ? "evaluate.text" : "evaluate.tasks";
  if (!text && !asks_prompts(options)) return;
  check.demand_tokenizer(key, "model.from", check.stage.get<ModelOptions>().from,
                         text ? "; token shards of its ids need none" : "");
  check.demand_tokenizer(key, "evaluate.against", options.against);
}

// The model's own template, where its files are there and may hold one.
void check_own_template(StageCheck& check, const char* key, const std::string& address) {
  const auto& options = check.stage.get<EvaluateOptions>();
  if (options.chat != "model" || !asks_prompts(options) || check.alone) return;
  if (address.empty() || stage_of(address) || preset_of(address)) return;
  std::string why;
  try {
    const artifacts::Artifact found = artifacts::find_model(address);
    if (found.kind == artifacts::Kind::kHfFolder || found.kind == artifacts::Kind::kGguf)
      why = trouble_with({"evaluate.chat", found.path.string(), Thing::kTemplate});
  } catch (const Error&) {  // NOLINT(bugprone-empty-catch): missing_files() says why
  }
  if (!why.empty())
    check.add({"evaluate.chat", key}, fmt::format("model: {}; name a .jinja file or one of {}", why,
                                                  fmt::join(data::shipped_templates().names(), ", ")));
}

void check_stage(StageCheck& check) {
  check.demand_model();
  check_lengths(check);
  check_tokenizers(check);
  check_own_template(check, "model.from", check.stage.get<ModelOptions>().from);
  check_own_template(check, "evaluate.against", check.stage.get<EvaluateOptions>().against);
  for (const Second& second : seconds()) check_second(check, second);
  const auto& options = check.stage.get<EvaluateOptions>();
  if (const std::string misfit = described_misfit(options); !misfit.empty())
    check.add("evaluate.tasks", misfit);
  if (std::string misfit = eval::figures_misfit(rows_of(options)); !misfit.empty())
    check.add("evaluate.tasks", std::move(misfit));
  if (options.tasks.empty()) check.add("evaluate.tasks", "must name at least one task, got none");
  std::vector<std::string> known = eval::tasks().names();
  for (std::string& name : shipped_task_names()) known.push_back(std::move(name));
  for (const std::string& name : options.tasks)
    if (!is_task_file(name) && std::find(known.begin(), known.end(), name) == known.end())
      check.add("evaluate.tasks",
                fmt::format("unknown task \"{}\"{}; known: {}, and descriptions that end in .yaml", name,
                            did_you_mean(name, known), fmt::join(known, ", ")));
  for (const Second& second : seconds())
    if ((options.*second.address).empty() &&
        std::find(options.tasks.begin(), options.tasks.end(), second.task) != options.tasks.end())
      check.add({"evaluate." + second.noun, "evaluate.tasks"},
                fmt::format("must name a model for task {}, got none", second.task));
  if (need_text(options) && text_input(check.stage).address.empty())
    check.add({"evaluate.text", "data.validation"}, "must name a text for these tasks, got none");
}

// Of `data` only what the tasks read: the window, and the text where evaluate.text names none.
void forget(Stage& stage) {
  const DataOptions before = stage.get<DataOptions>();
  DataOptions& data = stage.get<DataOptions>() = {};
  data.sequence = before.sequence;
  if (stage.get<EvaluateOptions>().text.empty()) data.validation = before.validation;
}

// A directory of its own name, gone with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "retort-evaluate-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail<IoError>("{}: cannot be made: {}", name, errno_text());
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// A text file's shards. Their files are mapped, and have no names any more when this returns.
std::shared_ptr<const data::TokenShards> shards_of(const std::string& text,
                                                   const data::Tokenizer& tokenizer) {
  const TemporaryDirectory directory;
  Log quiet(stderr, "", true);
  data::PrepareOptions options;
  options.tokenizer = tokenizer.name();
  options.text = {text};
  options.documents.format = "text";  // as it is, whatever it is called
  options.validation = 0.0;
  data::prepare(options, directory.path(), /*window=*/1, local_files(), quiet);
  return std::make_shared<data::TokenShards>(directory.path() / "train");
}

std::shared_ptr<const data::TokenShards> open_text(const StageContext& context,
                                                   const artifacts::OpenedModel& model) {
  const Input input = text_input(context.stage);
  if (!need_text(context.stage.get<EvaluateOptions>())) return nullptr;
  if (input.thing == Thing::kText) return shards_of(input.address, model.need_tokenizer());
  auto shards = open_shards(input, context.run);
  artifacts::check_tokenizer(model, *shards, input.key);
  return shards;
}

// A model's figures, as they are kept and shown.
struct Measured {
  eval::Figures figures;
  ModelAnswers answers;
  formats::Json parameters = {};
  formats::Json text = formats::Json::object();  // of the text's score
};

eval::Figures all_of(const eval::Figures& of_rows, const ModelAnswers& answers) {
  eval::Figures out = of_rows;
  for (const eval::TaskResult& task : answers.tasks)
    for (const eval::MetricResult& metric : task.metrics)
      out[figure_name(task.spec.task, metric)] = {metric.value, metric.error, metric.higher_is_better};
  return out;
}

std::string table_of(const std::string& model, const eval::Figures& figures) {
  std::vector<std::vector<std::string>> rows = {{"figure", model, "standard error"}};
  for (const auto& [name, figure] : figures)
    rows.push_back(
        {name, fmt::format("{:.4f}", figure.value),
         std::isfinite(figure.standard_error) ? fmt::format("{:.4f}", figure.standard_error) : "-"});
  return markdown_table(rows);
}

Measured measure(StageContext& context, const std::string& from) {
  const auto& options = context.stage.get<EvaluateOptions>();
  artifacts::OpenedModel model;
  std::map<std::string, artifacts::OpenedModel> opened;  // the others, by noun
  std::shared_ptr<const data::TokenShards> text;
  comm::together(context.comm, [&] {
    model = context.open_model(from, context.log);
    for (const Second& second : seconds())
      if (const std::string& address = options.*second.address; !address.empty())
        opened[second.noun] = open_second(context, second.noun, address, model);
    text = open_text(context, model);
  });
  bring_to_device("the model", *model.decoder, context.device);
  std::vector<int64_t> contexts = {model.decoder->context()};
  std::vector<const models::Model*> there = {model.decoder.get()};
  for (auto& [noun, other] : opened) {
    contexts.push_back(other.decoder->context());
    there.push_back(other.decoder.get());
    bring_to_device("the " + noun, *other.decoder, context.device);
  }
  const auto second = [&](const std::string& noun) -> models::Model* {
    const auto found = opened.find(noun);
    return found == opened.end() ? nullptr : found->second.decoder.get();
  };
  const int64_t sequence = window_of(context.stage.get<DataOptions>().sequence, contexts);
  eval::Evaluation evaluation({.model = *model.decoder,
                               .comm = context.comm,
                               .text = text,
                               .sequence = sequence,
                               .limit = options.limit,
                               .tokenizer = model.tokenizer.get(),
                               .drafter = second("drafter"),
                               .reference = second("reference"),
                               .drafting = {options.drafted, options.temperature}});
  Measured out;
  work_with(there, context.device, "evaluation", "a shorter data.sequence or evaluate.max_length needs less",
            [&] {
              out.figures = evaluation.run(rows_of(options));
              out.answers = run_described(context, model);
              out.figures = all_of(out.figures, out.answers);
              if (text) out.text = score_json(evaluation.score(), sequence);
            });
  out.parameters = parameter_counts(*model.decoder);
  comm::on_rank_zero(context.comm, [&] {
    write_results(context, model, out.answers);
    context.print(table_of(model.source, out.figures));
  });
  return out;
}

StageOutcome run(StageContext& context) {
  const KeptPages kept;
  const at::NoGradGuard no_grad;
  const auto& options = context.stage.get<EvaluateOptions>();
  StageOutcome outcome;
  const Measured first = measure(context, context.stage.get<ModelOptions>().from);
  outcome.result = first.parameters;
  outcome.result.update(first.text);
  for (const auto& [name, figure] : first.figures) {
    outcome.result[name] = figure.value;
    outcome.result[name + "_error"] = figure.standard_error;
  }
  if (options.against.empty()) return outcome;
  const Measured second = measure(context, options.against);
  for (const auto& [name, figure] : second.figures) outcome.result["against." + name] = figure.value;
  const std::vector<eval::Difference> differences = eval::compare(first.answers.tasks, second.answers.tasks);
  for (const eval::Difference& one : differences) {
    const std::string name = one.task + "." + one.metric;
    outcome.result["difference." + name] = {
        {"value", one.second - one.first}, {"low", one.low},  {"high", one.high}, {"p", one.p},
        {"p_holm", one.corrected_p},       {"test", one.test}};
  }
  comm::on_rank_zero(context.comm, [&] {
    if (!differences.empty())
      context.print("\n" + comparison_table(differences, first.answers.source, second.answers.source));
  });
  return outcome;
}

// Of every task, whatever the recipe asks for.
std::vector<std::string> all_figures() {
  std::vector<std::string> names = {"stored", "expanded", "nats", "tokens_scored", "bytes_scored", "window"};
  for (const eval::Task& task : eval::tasks())
    for (const std::string& figure : task.figures) {
      names.push_back(figure);
      names.push_back(figure + "_error");
    }
  for (const std::string& figure : shipped_figures()) {
    names.push_back(figure);
    names.push_back(figure + "_error");
  }
  return names;
}

}  // namespace

void EvaluateOptions::describe(Section& s) {
  s.field("tasks", tasks,
          fmt::format("tasks to run: {}; those with descriptions: {}; or paths of descriptions (.yaml)",
                      fmt::join(eval::tasks().names(), ", "), fmt::join(shipped_task_names(), ", ")));
  s.field("text", text, "text file or token shards that tasks on a text read; data.validation when left out");
  s.field("limit", limit, "tokens of the text that count, from its start; 0: all", at_least<int64_t>(0));
  s.field("data", data, "folder of the files that descriptions name; the description's own when left out");
  s.field("against", against, "second MODEL, compared with the first document by document");
  s.field("reference", reference,
          "MODEL that it was made from, of the same vocabulary; how far it has come is measured on the text");
  s.field("drafter", drafter,
          "MODEL of the same vocabulary that drafts tokens for it; its acceptance is measured on the text");
  s.field("drafted", drafted, "tokens that the drafter proposes a round", at_least<int64_t>(1));
  s.field("temperature", temperature,
          "temperature at which drafts are drawn and accepted; greedy figures have none", above(0.0));
  s.field("documents", documents, "documents of each described task, from its start; 0: all",
          at_least<int64_t>(0));
  s.field("shots", shots, "examples before each prompt; -1: as many as the description says",
          between<int64_t>(-1, 1000));
  s.field("chat", chat,
          "template of the conversation that a prompt becomes the user's message of: model (its own), a "
          "shipped one, or a "
          ".jinja file; plain prompts when left out");
  s.field("max_length", max_length, "tokens of a prompt with its answer at most; 0: the model's context",
          at_least<int64_t>(0));
  s.field("bootstrap", bootstrap, "resamples of bootstrap errors; 0: no errors", at_least<int64_t>(0));
}

StageKind evaluate_stage() {
  return {.name = "evaluate",
          .doc = "figures of a model on texts and tasks, with their standard errors",
          .sections = {model_section(), data_section(),
                       section_kind<EvaluateOptions>("evaluate", "the tasks, and the text that they read")},
          .figures = all_figures(),
          .product = "evaluation.md",
          .inputs = inputs,
          .check = check_stage,
          .forget = forget,
          .run = run};
}

}  // namespace retort::recipes
