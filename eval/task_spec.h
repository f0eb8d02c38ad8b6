// A task as its description says it, in the keys of lm-evaluation-harness (docs/evaluation.md, "Describing a task"):
// where documents come from, how one becomes a prompt with choices or a target, and which metrics count. A value.
// validate() throws ConfigError naming the task and the key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"

namespace retort::eval {

// Files of records by split: the endings of their names say what they hold (data/records.h).
struct TaskFiles {
  std::vector<std::string> train, validation, test, dev;
  void describe(Section& s);
  const std::vector<std::string>* find(
      const std::string& split) const;  // nullptr for a split of another name
};

struct TaskSource {
  TaskFiles data_files;
  void describe(Section& s);
};

// One replacement in a text: of a text, or of what a regular expression matches.
struct TextRule {
  std::string text = {}, regex = {}, by = {};
  void describe(Section& s);
};

// A field that is made of each document's others, before anything else sees it.
struct MadeField {
  std::string name = {}, from = {};  // a template; what prints as a list becomes one where `list` is true
  bool list = false;
  std::vector<TextRule> replace = {};  // in this order; of a list in each of its texts
  void describe(Section& s);
};

struct MetricSpec {
  std::string metric, aggregation;  // aggregation "": the metric's own
  bool higher_is_better = true;
  // Of exact_match: what is deleted from both sides, in this order, before they are compared.
  std::vector<std::string> regexes_to_ignore;
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
  void describe(Section& s);
};

struct GenerationSpec {
  std::vector<std::string> until;
  int64_t max_gen_toks = 256;
  bool do_sample = false;
  double temperature = 0.0;
  void describe(Section& s);
};

struct FilterStep {
  std::string function, regex_pattern = "#### (\\-?[0-9\\.\\,]+)", fallback = "[invalid]";
  int64_t group_select = 0;  // which match: 0 the first, -1 the last
  void describe(Section& s);
};

struct FilterSpec {
  std::string name = "none";
  std::vector<FilterStep> filter;
  void describe(Section& s);
};

struct FewshotSpec {
  std::string sampler = "default";
  void describe(Section& s);
};

struct TaskMetadata {
  double version = 0.0;
  void describe(Section& s);
};

struct TaskSpec {
  std::string task, task_alias, dataset_path, dataset_name, output_type = "generate_until";
  std::vector<std::string> tag;
  TaskSource dataset_kwargs;
  std::string training_split, validation_split, test_split, fewshot_split;
  std::vector<MadeField> fields;
  std::string description, doc_to_text, doc_to_target;
  std::vector<std::string> doc_to_choice;  // one: a field or a template that gives a list; else the choices
  std::string doc_to_count;  // of rolling: the text whose words and bytes count; "": the one scored
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  int64_t num_fewshot = 0;
  FewshotSpec fewshot_config;
  std::vector<MetricSpec> metric_list;
  GenerationSpec generation_kwargs;
  std::vector<FilterSpec> filter_list;
  TaskMetadata metadata;
  bool should_decontaminate = false;         // read and not used
  std::string doc_to_decontamination_query;  // read and not used

  void describe(Section& s);
  void validate() const;

  bool multiple_choice() const { return output_type == "multiple_choice"; }
  bool rolling() const { return output_type == "loglikelihood_rolling"; }
  bool generates() const { return output_type == "generate_until"; }
  const std::string& test() const { return test_split.empty() ? validation_split : test_split; }
  std::vector<std::string> all_files() const;  // of the splits that it reads
  std::string shots_split() const;             // where its examples come from; "" for none
};

}  // namespace retort::eval
