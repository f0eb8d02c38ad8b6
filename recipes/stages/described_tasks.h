// The described tasks of an evaluate stage: what they read, how they are run on a model, and what is kept of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "artifacts/open_model.h"
#include "eval/comparison.h"
#include "eval/run_task.h"
#include "formats/json.h"
#include "recipes/stage_context.h"
#include "recipes/stages/evaluate.h"
#include "recipes/task_files.h"

namespace retort::recipes {

// Of the tasks that are no rows of eval::tasks().
std::vector<std::string> described_names(const EvaluateOptions& options);
// Descriptions that are files, and the data files of all; of a description that cannot be read only itself.
std::vector<Input> described_inputs(const EvaluateOptions& options);

// What is wrong with them by their descriptions alone: two of one name; "" when nothing is.
std::string described_misfit(const EvaluateOptions& options);
// Of a task whose data files are not all there, the first, and that `key` names their folder; "" when they are.
std::string missing_file(const DescribedTask& task, const std::string& key);
// Read, with their data files in their places; IoError for one that is not there.
std::vector<DescribedTask> open_described(const EvaluateOptions& options, const std::string& key);
// `run` of each; its prompts' folder is the task's. Collective.
std::vector<eval::TaskResult> answer_described(const std::vector<DescribedTask>& tasks, eval::TaskRun run);

// A model's answers to all of them. Collective.
struct ModelAnswers {
  std::string source;  // the model's
  std::vector<eval::TaskResult> tasks;
  double seconds = 0;
  std::string chat_template;
};
ModelAnswers run_described(const StageContext& context, const artifacts::OpenedModel& model);

// "TASK.METRIC", with ".FILTER" where there are several.
std::string figure_name(const std::string& task, const eval::MetricResult& metric);
// All of a description's, and whether more is better.
std::vector<std::pair<std::string, bool>> directions_of(const eval::TaskSpec& spec);
std::vector<std::string> figures_of(const eval::TaskSpec& spec);
std::vector<std::string> shipped_figures();  // of the shipped descriptions

std::string comparison_table(const std::vector<eval::Difference>& differences, const std::string& first,
                             const std::string& second);

// results and samples, in the harness' layout: in the stage's directory, or as OUT/MODEL/results_TIME.json.
void write_results(const StageContext& context, const artifacts::OpenedModel& model,
                   const ModelAnswers& answers);

}  // namespace retort::recipes
