#include "eval/prompts.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/error.h"
#include "eval/doc_template.h"
#include "eval/python_random.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace {

constexpr uint64_t kFewshotSeed = 1234;

// What a document's templates say, before examples.
struct Parts {
  std::string text, target;             // as texts
  std::optional<size_t> chosen;         // text is a choice's number: choices are contexts
  std::optional<size_t> target_number;  // target is one
  std::vector<std::string> choices;
};

std::optional<size_t> number_of(const formats::Json& value) {
  if (value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0))
    return value.get<size_t>();
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  size_t number = 0;
  if (!is_digits(text) || std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc())
    return std::nullopt;
  return number;
}

class PromptMaker {
 public:
  explicit PromptMaker(const TaskSpec& spec)
      : spec_(spec),
        text_(spec.task + ".doc_to_text", spec.doc_to_text),
        target_(spec.task + ".doc_to_target", spec.doc_to_target),
        counted_(spec.task + ".doc_to_count", spec.doc_to_count),
        description_(spec.task + ".description", spec.description) {
    if (spec.doc_to_choice.size() == 1)
      choices_.emplace(spec.task + ".doc_to_choice", spec.doc_to_choice.front());
  }

  Parts parts(const TaskDocument& document) const {
    Parts out;
    const formats::Json text = text_.value(document.fields, document.where),
                        target = target_.value(document.fields, document.where);
    out.text = text_of(text);
    out.target = text_of(target);
    if (!spec_.multiple_choice()) return out;
    out.choices = choices_ ? choices_->list(document.fields, document.where) : spec_.doc_to_choice;
    check<DataError>(!out.choices.empty(), "{}: there must be at least one choice", document.where);
    out.chosen = number_of(text);
    out.target_number = number_of(target);
    return out;
  }

  // The number of the right choice.
  size_t gold(const Parts& parts, const TaskDocument& document) const {
    const auto found = std::find(parts.choices.begin(), parts.choices.end(), parts.target);
    const size_t gold = parts.chosen          ? *parts.chosen
                        : parts.target_number ? *parts.target_number
                                              : static_cast<size_t>(found - parts.choices.begin());
    check<DataError>(gold < parts.choices.size(),
                     "{}: the right answer must be one of {} choices, got \"{}\"", document.where,
                     parts.choices.size(), parts.chosen ? parts.text : parts.target);
    return gold;
  }

  // A document with its answer, before another's prompt.
  std::string example(const TaskDocument& document) const {
    const Parts all = parts(document);
    const auto choice = [&](size_t number) {
      check<DataError>(number < all.choices.size(), "{}: there are {} choices, got number {}", document.where,
                       all.choices.size(), number);
      return all.choices[number];
    };
    const std::string text = all.chosen ? choice(*all.chosen) : all.text;
    const std::string answer = all.target_number && !all.chosen ? choice(*all.target_number) : all.target;
    return text + spec_.target_delimiter + answer + spec_.fewshot_delimiter;
  }

  Prompt prompt(TaskDocument document, const std::string& examples, const ChatPrompt& chat) const {
    const Parts all = parts(document);
    const std::string& where = document.where;
    Prompt out;
    out.choices = all.choices;
    out.target = all.target;
    const std::string system = description_.text(document.fields, where);
    const auto asked = [&](const std::string& text) {
      return chat ? chat(system, examples + text) : system + examples + text;
    };
    const std::string delimiter = chat ? "" : spec_.target_delimiter;
    if (spec_.multiple_choice()) {
      out.gold = gold(all, document);
      for (const std::string& choice : all.choices)
        out.requests.push_back(all.chosen ? Request{asked(choice), delimiter + all.target}
                                          : Request{asked(all.text), delimiter + choice});
    } else if (spec_.rolling()) {
      out.counted = spec_.doc_to_count.empty() ? all.target : counted_.text(document.fields, where);
    } else {
      out.requests.push_back({asked(all.text), spec_.generates() ? std::string() : all.target});
    }
    out.document = std::move(document);
    return out;
  }

 private:
  const TaskSpec& spec_;
  DocTemplate text_, target_, counted_, description_;
  std::optional<DocTemplate> choices_;
};

// Examples for one document after another: the draw of each depends on those before it.
class ExampleDraw {
 public:
  ExampleDraw(const TaskSpec& spec, const PromptMaker& maker, const PromptOptions& options)
      : spec_(spec), maker_(maker), wanted_(static_cast<size_t>(spec.num_fewshot)), random_(kFewshotSeed) {
    if (wanted_ == 0) return;
    const std::string split = spec.shots_split();
    check<ConfigError>(!split.empty(), "[task {}] num_fewshot needs a split of examples", spec.task);
    pool_ = read_task_documents(spec, split, options.folder);
    check<DataError>(draws() <= pool_.size(),
                     "[task {}] {} examples must be drawn of at least {} documents, got {}", spec.task,
                     wanted_, draws(), pool_.size());
  }

  std::string next(const TaskDocument& document) {
    std::string out;
    size_t used = 0;
    if (wanted_ == 0) return out;
    for (const size_t i :
         spec_.fewshot_config.sampler == "first_n" ? first() : random_.sample(pool_.size(), draws()))
      if (used < wanted_ && !(one_more() && pool_[i].fields == document.fields)) {
        out += maker_.example(pool_[i]);
        ++used;
      }
    return out;
  }

 private:
  // The harness takes the document itself out of its draw where both come from one split, and believes that they do
  // where neither split has a name.
  bool one_more() const {
    return spec_.fewshot_config.sampler != "first_n" && spec_.fewshot_split == spec_.test_split;
  }
  size_t draws() const { return wanted_ + one_more(); }
  std::vector<size_t> first() const {
    std::vector<size_t> out;
    for (size_t i = 0; i < wanted_; ++i) out.push_back(i);
    return out;
  }

  const TaskSpec& spec_;
  const PromptMaker& maker_;
  size_t wanted_;
  std::vector<TaskDocument> pool_;
  PythonRandom random_;
};

}  // namespace

TaskPrompts make_prompts(const TaskSpec& spec, const PromptOptions& options) {
  spec.validate();
  std::vector<TaskDocument> documents = read_task_documents(spec, spec.test(), options.folder);
  TaskPrompts out;
  out.documents = std::ssize(documents);
  if (options.documents > 0 && options.documents < out.documents)
    documents.resize(static_cast<size_t>(options.documents));
  const PromptMaker maker(spec);
  ExampleDraw examples(spec, maker, options);
  for (TaskDocument& document : documents) {
    const std::string shots = examples.next(document);
    out.prompts.push_back(maker.prompt(std::move(document), shots, options.chat));
  }
  return out;
}

}  // namespace retort::eval
