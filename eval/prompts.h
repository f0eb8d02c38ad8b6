// A task's documents as what is asked of a model: contexts and continuations, texts to go through, or prompts to
// answer, with the examples before each (docs/evaluation.md, "Prompts and examples"). Examples are drawn as
// lm-evaluation-harness draws them on one rank, whatever ranks there are. Throws DataError naming the document.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/requests.h"
#include "eval/task_documents.h"
#include "eval/task_spec.h"

namespace retort::eval {

struct Prompt {
  TaskDocument document;
  std::vector<Request> requests;     // of each choice; or one, but for rolling
  std::vector<std::string> choices;  // without the delimiter; empty where there are none
  size_t gold = 0;                   // the right choice
  std::string target;                // the right answer, or the text that is gone through
  std::string counted;               // the text whose words and bytes count
};

// Writes a conversation as a chat model wants it, up to where the assistant answers.
using ChatPrompt = std::function<std::string(const std::string& system, const std::string& user)>;

struct PromptOptions {
  Path folder = {};       // where files are that have no absolute path
  int64_t documents = 0;  // the first ones; 0: all
  ChatPrompt chat = {};   // empty: prompts are plain text
};

struct TaskPrompts {
  std::vector<Prompt> prompts;
  int64_t documents = 0;  // that the split has
};
TaskPrompts make_prompts(const TaskSpec& spec, const PromptOptions& options);

}  // namespace retort::eval
