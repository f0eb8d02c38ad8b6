#include "eval/task_spec.h"

#include <algorithm>

#include "core/error.h"
#include "eval/metrics.h"

namespace retort::eval {

void TaskFiles::describe(Section& s) {
  s.field("train", train, "files of the split train");
  s.field("validation", validation, "files of the split validation");
  s.field("test", test, "files of the split test");
  s.field("dev", dev, "files of the split dev");
}

const std::vector<std::string>* TaskFiles::find(const std::string& split) const {
  return split == "train"        ? &train
         : split == "validation" ? &validation
         : split == "test"       ? &test
         : split == "dev"        ? &dev
                                 : nullptr;
}

void TaskSource::describe(Section& s) { s.section("data_files", data_files, "files of records, by split"); }

void TextRule::describe(Section& s) {
  s.field("text", text, "text that is replaced");
  s.field("regex", regex, "regular expression whose matches are replaced, instead of a text");
  s.field("by", by, "what comes instead; of a regular expression $1 is the first group");
}

void MadeField::describe(Section& s) {
  s.field("name", name, "name of the field");
  s.field("from", from, "template that makes it of the document's fields");
  s.field("list", list, "whether it is a list of texts rather than a text");
  s.list("replace", replace, "replacements in the text, or in each text of the list, one after another");
}

void MetricSpec::describe(Section& s) {
  s.field("metric", metric, "metric: " + fmt::format("{}", fmt::join(metrics().names(), ", ")),
          one_of(metrics().names()));
  s.field("aggregation", aggregation,
          "how documents become one number, where it is not the metric's own way: " +
              fmt::format("{}", fmt::join(aggregations().names(), ", ")),
          one_of(aggregations().names()));
  s.field("higher_is_better", higher_is_better, "whether more is better");
  s.field("regexes_to_ignore", regexes_to_ignore,
          "regular expressions that exact_match deletes from both sides");
  s.field("ignore_case", ignore_case, "whether exact_match compares lower-case letters");
  s.field("ignore_punctuation", ignore_punctuation, "whether exact_match deletes ASCII punctuation");
  s.field("ignore_numbers", ignore_numbers, "whether exact_match deletes digits");
}

void GenerationSpec::describe(Section& s) {
  s.field("until", until, "texts that end an answer and are no part of it");
  s.field("max_gen_toks", max_gen_toks, "tokens of an answer at most", at_least<int64_t>(1));
  s.field("do_sample", do_sample, "must be false: answers are the likeliest tokens");
  s.field("temperature", temperature, "not used without sampling");
}

void FilterStep::describe(Section& s) {
  s.field("function", function, "step: regex or take_first", one_of({"regex", "take_first"}));
  s.field("regex_pattern", regex_pattern, "regular expression that finds the answer");
  s.field("group_select", group_select, "which match: 0 the first, -1 the last");
  s.field("fallback", fallback, "answer where nothing matches");
}

void FilterSpec::describe(Section& s) {
  s.field("name", name, "name of the filter, part of the figure's name");
  s.list("filter", filter, "steps, one after another");
}

void FewshotSpec::describe(Section& s) {
  s.field("sampler", sampler, "default: drawn for each document; first_n: the first ones of the split",
          one_of({"default", "first_n"}));
}

void TaskMetadata::describe(Section& s) { s.field("version", version, "version of the task"); }

void TaskSpec::describe(Section& s) {
  s.field("task", task, "name of the task");
  s.field("task_alias", task_alias, "name that tables show");
  s.field("tag", tag, "not used");
  s.field("dataset_path", dataset_path, "not used: data_files names the files");
  s.field("dataset_name", dataset_name, "not used: data_files names the files");
  s.section("dataset_kwargs", dataset_kwargs, "where documents come from");
  s.field("output_type", output_type, "what is asked of the model",
          one_of({"multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"}));
  s.field("training_split", training_split, "split of training documents: examples, where no other is named");
  s.field("validation_split", validation_split, "split that is scored where there is no test_split");
  s.field("test_split", test_split, "split that is scored");
  s.field("fewshot_split", fewshot_split, "split that examples come from");
  s.list("fields", fields, "fields that are made of each document's others first");
  s.field("description", description, "text before everything else of a prompt");
  s.field("doc_to_text", doc_to_text,
          "prompt: a template or a field; the right choice's number where choices are contexts");
  s.field("doc_to_target", doc_to_target,
          "answer: a template, a field, or the right choice's number or text");
  s.field("doc_to_choice", doc_to_choice, "choices: a list, or a template or a field that gives one");
  s.field("doc_to_count", doc_to_count, "text whose words and bytes count, where it is not the scored one");
  s.field("target_delimiter", target_delimiter, "text between a prompt and its answer");
  s.field("fewshot_delimiter", fewshot_delimiter, "text after each example");
  s.field("num_fewshot", num_fewshot, "examples before each prompt", between<int64_t>(0, 1000));
  s.section("fewshot_config", fewshot_config, "how examples are chosen");
  s.list("metric_list", metric_list, "metrics; those of the output type when left out");
  s.section("generation_kwargs", generation_kwargs, "how answers are generated");
  s.list("filter_list", filter_list,
         "ways to take the answer from what was generated, each with figures of its own");
  s.section("metadata", metadata, "facts about the task");
  s.field("should_decontaminate", should_decontaminate, "not used");
  s.field("doc_to_decontamination_query", doc_to_decontamination_query, "not used");
}

std::string TaskSpec::shots_split() const {
  if (num_fewshot == 0) return "";
  for (const std::string* split : {&fewshot_split, &training_split, &validation_split, &test_split})
    if (!split->empty()) return *split;
  return "";
}

std::vector<std::string> TaskSpec::all_files() const {
  std::vector<std::string> out;
  for (const std::string& split : {test(), shots_split()}) {
    const std::vector<std::string>* files = dataset_kwargs.data_files.find(split);
    if (files == nullptr) continue;
    for (const std::string& file : *files)
      if (std::find(out.begin(), out.end(), file) == out.end()) out.push_back(file);
  }
  return out;
}

void TaskSpec::validate() const {
  const auto rule = [&](bool holds, const char* key, const std::string& text) {
    check<ConfigError>(holds, "[task {}] {} {}", task, key, text);
  };
  rule(!task.empty(), "task", "must name the task");
  for (const std::string& split : {test(), shots_split()}) {
    if (split.empty()) continue;
    const std::vector<std::string>* files = dataset_kwargs.data_files.find(split);
    rule(files != nullptr && !files->empty(), "dataset_kwargs.data_files",
         fmt::format("must name files of the split \"{}\", which must be train, validation, test or dev",
                     split));
  }
  rule(!test().empty(), "test_split", "or validation_split must name the split to score");
  rule(!doc_to_target.empty(), "doc_to_target", "must say what is right");
  rule(multiple_choice() != doc_to_choice.empty(), "doc_to_choice",
       "must be there for multiple_choice, and for nothing else");
  rule(!generation_kwargs.do_sample, "generation_kwargs.do_sample", "must be false");
  rule(filter_list.empty() || generates(), "filter_list", "must be empty where nothing is generated");
  for (const std::string& stop : generation_kwargs.until)
    rule(!stop.empty(), "generation_kwargs.until", "must hold no empty text");
  for (const MadeField& field : fields) {
    rule(!field.name.empty() && !field.from.empty(), "fields", "must each have a name and a template");
    for (const TextRule& one : field.replace)
      rule(one.text.empty() != one.regex.empty(), "fields.replace",
           "must have a text or a regex, one of them");
  }
  for (const MetricSpec& one : metric_list)
    rule(metrics().at(one.metric).serves(output_type), "metric_list",
         fmt::format("must fit the output type {}, got {}", output_type, one.metric));
}

}  // namespace retort::eval
