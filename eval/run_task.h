// A described task on a model: its documents asked, answered and counted (docs/evaluation.md, "Tasks from
// descriptions"). Collective: every rank gets the same bits, for every number of ranks. The model is judged on its
// working weights as they are. Throws ConfigError, DataError, IoError, NonFiniteError.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "eval/metrics.h"
#include "eval/prompts.h"
#include "models/model.h"

namespace retort::eval {

struct TaskRun {
  models::Model& model;
  const data::Tokenizer& tokenizer;
  comm::Comm& comm;
  PromptOptions prompts = {};
  std::vector<int32_t> ends = {};  // tokens that end an answer
  int64_t window = 0;              // tokens that the model sees at most; 0: its context
  int64_t resamples = 100000;      // of bootstrap errors
};

struct MetricResult {
  std::string metric, filter = "none";
  bool higher_is_better = true;
  std::vector<Score> scores = {};  // of each document
  double value = 0, error = 0;     // the error is NaN where there is none
  std::string name() const { return metric + "," + filter; }
};

struct TaskResult {
  TaskSpec spec;
  int64_t documents = 0;  // that the split has; prompts has those that were asked
  std::vector<Prompt> prompts;
  std::vector<std::vector<LogLikelihood>> answers;           // of each prompt's requests
  std::vector<std::string> generated;                        // of each prompt
  std::map<std::string, std::vector<std::string>> filtered;  // by filter, of each prompt
  std::vector<MetricResult> metrics;
};
// Those that a description names, or the usual ones of its kind.
std::vector<MetricSpec> metrics_of(const TaskSpec& spec);
TaskResult run_task(const TaskSpec& spec, const TaskRun& run);

}  // namespace retort::eval
