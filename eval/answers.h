// Answers that a model writes: generated, taken out of what was generated, and compared with the right one, as
// lm-evaluation-harness does (docs/evaluation.md, "Generated answers"). Throws ConfigError for a regular expression,
// DataError, NonFiniteError.
#pragma once

#include <string>
#include <vector>

#include "comm/comm.h"
#include "data/regex.h"
#include "eval/requests.h"
#include "eval/task_spec.h"
#include "models/model.h"

namespace retort::eval {

// Collective: the same on every rank, whatever their number. The likeliest tokens after each prompt, up to a stop
// text, one of `ends`, or the most tokens; prompts that leave no room for these lose their beginning.
std::vector<std::string> generate_answers(models::Model& model, const data::Tokenizer& tokenizer,
                                          const RequestEncoder& encoder,
                                          const std::vector<std::string>& prompts,
                                          const GenerationSpec& options, const std::vector<int32_t>& ends,
                                          comm::Comm& comm);

class AnswerFilter {
 public:
  explicit AnswerFilter(const FilterSpec& spec);
  const std::string& name() const { return name_; }
  std::string operator()(const std::string& generated) const;

 private:
  struct Step {
    FilterStep spec;
    data::Regex regex;
  };
  std::string name_;
  std::vector<Step> steps_;
};

// exact_match.
class AnswerMatch {
 public:
  explicit AnswerMatch(const MetricSpec& spec);
  bool operator()(const std::string& answer, const std::string& target) const;

 private:
  std::string plain(std::string text) const;

  MetricSpec spec_;
  std::vector<data::Regex> ignored_;
};

}  // namespace retort::eval
