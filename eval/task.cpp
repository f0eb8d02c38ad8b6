#include "eval/task.h"

#include <set>

#include "core/error.h"

namespace retort::eval {

// Each in the file of its name in eval/tasks/.
Task perplexity();
Task bits_per_byte();
Task drafting_task();    // drafting.cpp
Task divergence_task();  // divergence.cpp

const Registry<Task>& tasks() {
  static const Registry<Task> table("task",
                                    {perplexity(), bits_per_byte(), drafting_task(), divergence_task()});
  return table;
}

namespace {

void check_needs(const Task& task, const TaskInput& input) {
  for (const Needs need : task.needs) {
    const auto [there, what] = need == Needs::kText      ? std::pair(input.text != nullptr, "a text")
                               : need == Needs::kDrafter ? std::pair(input.drafter != nullptr, "a drafter")
                               : need == Needs::kReference
                                   ? std::pair(input.reference != nullptr, "a reference")
                                   : std::pair(input.tokenizer != nullptr, "the model's tokenizer");
    check<ConfigError>(there, "[eval] task {} needs {}, and there is none", task.name, what);
  }
}

}  // namespace

std::string figures_misfit(const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (const std::string& name : names)
    for (const std::string& figure : tasks().at(name).figures)
      if (!seen.insert(figure).second)
        return fmt::format("the figure {} must come from one task, named once", figure);
  return "";
}

const TextScore& Evaluation::score() {
  if (!score_) score_ = score_text(input_.model, *input_.text, input_.sequence, input_.comm, input_.limit);
  return *score_;
}

Figures Evaluation::run(const std::vector<std::string>& names) {
  const std::string misfit = figures_misfit(names);
  check<ConfigError>(misfit.empty(), "[eval] {}", misfit);
  for (const std::string& name : names) check_needs(tasks().at(name), input_);
  Figures out;
  for (const std::string& name : names) out.merge(tasks().at(name).run(*this));
  return out;
}

}  // namespace retort::eval
