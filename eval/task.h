// What a model is measured by. A task takes a model on a group of ranks and gives named figures with their
// standard errors; a new one is a file in eval/tasks/ and a row in task.cpp. What several tasks read of the
// model is computed once: they share the Evaluation. Collective: every rank calls the same tasks and gets the
// same bits, for every number of ranks. The model is judged on its working weights as they are. Throws
// ConfigError, DataError.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "data/tokenizers/tokenizer.h"
#include "eval/drafting.h"
#include "eval/perplexity.h"

namespace retort::eval {

struct Figure {
  double value = 0;
  double standard_error = 0;  // NaN where the sample is too small for one
  bool higher_is_better = false;
};
using Figures = std::map<std::string, Figure>;

// What tasks are given. Each says what it needs beside the model.
struct TaskInput {
  models::Model& model;
  comm::Comm& comm;
  std::shared_ptr<const data::TokenShards> text = nullptr;
  int64_t sequence = 0;                        // tokens of a window of the text
  int64_t limit = 0;                           // of the text's first tokens; 0: all
  const data::Tokenizer* tokenizer = nullptr;  // the model's, for tasks that have texts of their own
  models::Model* drafter = nullptr;            // of the model's vocabulary
  models::Model* reference = nullptr;          // too: what it was made from
  DraftingOptions drafting = {};
};

enum class Needs { kText, kTokenizer, kDrafter, kReference };

class Evaluation {
 public:
  explicit Evaluation(TaskInput input) : input_(std::move(input)) {}
  const TaskInput& input() const { return input_; }
  const TextScore& score();  // of the text, made by the first call
  // The figures of all these rows of tasks(); their names are unique.
  Figures run(const std::vector<std::string>& names);

 private:
  TaskInput input_;
  std::optional<TextScore> score_;
};

struct Task {
  std::string name;
  std::string doc;                   // one line
  std::vector<std::string> figures;  // the names of what run() gives
  std::vector<Needs> needs;
  Figures (*run)(Evaluation& evaluation);
};
const Registry<Task>& tasks();
// Why tasks of these names cannot be run together: two give the same figure; "" when they can.
std::string figures_misfit(const std::vector<std::string>& names);

}  // namespace retort::eval
