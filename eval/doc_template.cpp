#include "eval/doc_template.h"

#include "core/error.h"
#include "data/templates/interpreter.h"
#include "data/templates/json_value.h"
#include "data/templates/parser.h"
#include "data/tokenizers/utf8.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace jinja = data::jinja;

namespace {

// One line break at a template's end is dropped; the harness keeps it.
std::string kept_whole(std::string source) {
  if (source.ends_with('\n')) source += '\n';
  return source;
}

}  // namespace

DocTemplate::DocTemplate(std::string name, const std::string& source)
    : name_(std::move(name)), source_(source) {
  std::string text = kept_whole(source);
  data::check_utf8(text, "refuse", name_);
  try {
    syntax_ = jinja::parse(text, {});
  } catch (const jinja::Raised& raised) {
    const jinja::Place place = raised.place.value_or(jinja::Place{});
    fail<DataError>("{}:{}:{}: {}", name_, place.line, place.column, raised.text);
  }
}

DocTemplate::~DocTemplate() = default;
DocTemplate::DocTemplate(DocTemplate&&) noexcept = default;

std::string DocTemplate::render(const formats::Json& document, const std::string& where) const {
  for (const jinja::Load& load : syntax_->layout.loads)
    check<DataError>(load.from != jinja::Load::From::kContext || document.contains(std::string(load.name)) ||
                         jinja::functions().find(load.name) != nullptr,
                     "{}: a document must have the field {}, which {} names", where, load.name, name_);
  jinja::Heap heap({});
  jinja::Interpreter::Variables values;
  jinja::Interpreter interpreter(*syntax_, heap, values, nullptr);
  try {
    for (const auto& [field, value] : document.items())
      values.emplace_back(field, jinja::from_json(heap, value));
    interpreter.run();
  } catch (const jinja::Raised& raised) {
    const jinja::Place place = raised.place.value_or(interpreter.place());
    fail<DataError>("{}: {}:{}:{}: {}", where, name_, place.line, place.column, raised.text);
  }
  return std::string(interpreter.output());
}

formats::Json DocTemplate::value(const formats::Json& document, const std::string& where) const {
  const auto field = document.find(source_);
  return field != document.end() ? *field : formats::Json(render(document, where));
}

std::string DocTemplate::text(const formats::Json& document, const std::string& where) const {
  return text_of(value(document, where));
}

std::vector<std::string> DocTemplate::list(const formats::Json& document, const std::string& where) const {
  const formats::Json found = value(document, where);
  std::vector<std::string> out;
  if (found.is_array()) {
    for (const formats::Json& item : found) out.push_back(text_of(item));
    return out;
  }
  const auto read = found.is_string() ? read_list(found.get_ref<const std::string&>()) : std::nullopt;
  check<DataError>(read.has_value(), "{}: {} must give a list of texts, got {}", where, name_,
                   text_of(found));
  return *read;
}

std::string text_of(const formats::Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return value.is_null() ? "None" : value.dump();
}

}  // namespace retort::eval
