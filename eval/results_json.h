// What described tasks gave, in the layout of lm-evaluation-harness' output files (docs/evaluation.md, "Output
// files"): results.json with each task's figures as "METRIC,FILTER", and a line for each document and filter. Pure.
#pragma once

#include <string>
#include <vector>

#include "eval/run_task.h"
#include "formats/json.h"

namespace retort::eval {

// Facts about the run that stand beside the figures.
struct RunFacts {
  std::string model = {}, dtype = {};  // the model's address
  int64_t parameters = 0, window = 0;
  int64_t limit = 0, resamples = 0;  // documents of each task; 0: all
  std::string date = {};             // seconds since 1970
  std::string chat_template = {};    // "" for plain prompts
  double seconds = 0;
};

formats::Json results_json(const std::vector<TaskResult>& tasks, const RunFacts& facts);
// Lines of samples_TASK.jsonl.
std::string sample_lines(const TaskResult& task);

}  // namespace retort::eval
