#include "eval/task_documents.h"

#include <optional>

#include "core/error.h"
#include "data/documents.h"
#include "data/records.h"
#include "data/regex.h"
#include "eval/doc_template.h"

namespace retort::eval {
namespace {

// Makes one field of a document's others.
class FieldMaker {
 public:
  FieldMaker(const MadeField& field, const std::string& task)
      : field_(field), from_(fmt::format("{}.fields.{}", task, field.name), field.from) {
    for (const TextRule& rule : field.replace)
      rules_.push_back({rule, rule.regex.empty() ? std::nullopt : std::optional<data::Regex>(rule.regex)});
  }

  void make(TaskDocument& document) const {
    if (!field_.list) {
      document.fields[field_.name] = cleaned(from_.text(document.fields, document.where));
      return;
    }
    formats::Json out = formats::Json::array();
    for (std::string& text : from_.list(document.fields, document.where))
      out.push_back(cleaned(std::move(text)));
    document.fields[field_.name] = std::move(out);
  }

 private:
  struct Rule {
    TextRule rule;
    std::optional<data::Regex> regex;
  };

  std::string cleaned(std::string text) const {
    for (const auto& [rule, regex] : rules_) {
      if (regex) {
        text = regex->replace_all(text, rule.by);
        continue;
      }
      for (size_t at = text.find(rule.text); at != text.npos; at = text.find(rule.text, at + rule.by.size()))
        text.replace(at, rule.text.size(), rule.by);
    }
    return text;
  }

  const MadeField& field_;
  DocTemplate from_;
  std::vector<Rule> rules_;
};

std::unique_ptr<data::RecordReader> open_records(const Path& path) {
  const std::string format = data::format_of(path, {});
  // A table of columns gives only the fields that are asked for by name, and templates may name any.
  check<DataError>(data::record_formats().find(format) != nullptr && format != "parquet",
                   "{}: a task's file must be .jsonl, .json, .csv or .tsv, by the ending of its name",
                   path.string());
  return data::record_formats().at(format).open(path, {});
}

}  // namespace

std::vector<TaskDocument> read_task_documents(const TaskSpec& spec, const std::string& split,
                                              const Path& folder) {
  const std::vector<std::string>* files = spec.dataset_kwargs.data_files.find(split);
  check<ConfigError>(files != nullptr, "[task {}] there is no split \"{}\"", spec.task, split);
  std::vector<FieldMaker> makers;
  for (const MadeField& field : spec.fields) makers.emplace_back(field, spec.task);
  std::vector<TaskDocument> out;
  data::Record record;
  for (const std::string& file : *files) {
    const auto reader = open_records(folder / file);
    while (reader->next(record)) {
      TaskDocument& document = out.emplace_back(TaskDocument{std::move(record.fields), record.where});
      for (const FieldMaker& maker : makers) maker.make(document);
    }
  }
  check<DataError>(!out.empty(), "[task {}] the split \"{}\" holds no document", spec.task, split);
  return out;
}

}  // namespace retort::eval
