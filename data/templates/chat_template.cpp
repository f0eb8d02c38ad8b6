#include "data/templates/chat_template.h"

#include "core/error.h"
#include "data/templates/interpreter.h"
#include "data/templates/json_value.h"
#include "data/templates/parser.h"
#include "data/tokenizers/utf8.h"

namespace retort::data {
namespace {

[[noreturn]] void report(const std::string& name, const jinja::Raised& raised, jinja::Place place) {
  if (raised.place) place = *raised.place;
  fail<DataError>("{}:{}:{}: {}", name, place.line, place.column, raised.text);
}

std::vector<std::pair<int32_t, TextSpan>> parts_of(const std::vector<jinja::Mark>& marks, size_t end) {
  std::vector<std::pair<int32_t, TextSpan>> out;
  for (size_t i = 0; i < marks.size(); ++i) {
    const TextSpan part{marks[i].offset, i + 1 < marks.size() ? marks[i + 1].offset : end};
    if (marks[i].message >= 0 && part.end > part.begin) out.emplace_back(marks[i].message, part);
  }
  return out;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string name, std::string_view source, const TemplateLimits& limits)
    : name_(std::move(name)), limits_(limits) {
  std::string text(source.substr(0, limits.source + 1));
  check_utf8(text, "refuse", name_);
  try {
    syntax_ = jinja::parse(source, limits_);
  } catch (const jinja::Raised& raised) {
    report(name_, raised, {});
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

bool ChatTemplate::has_generation() const { return syntax_->generation; }
bool ChatTemplate::asks_date() const { return syntax_->clock; }

Rendered ChatTemplate::render(const TemplateVariables& variables, const std::optional<std::tm>& now) const {
  jinja::Heap heap(limits_);
  jinja::Interpreter::Variables values;
  jinja::Interpreter interpreter(*syntax_, heap, values, now ? &*now : nullptr);
  try {
    for (const auto& [name, json] : variables)
      values.emplace_back(name, jinja::from_json(heap, *json, name == "messages"));
    interpreter.run();
  } catch (const jinja::Raised& raised) {
    report(name_, raised, interpreter.place());
  }
  Rendered out{
      std::string(interpreter.output()), parts_of(interpreter.marks(), interpreter.output().size()), 0, {}};
  if (!interpreter.marks().empty()) out.loops_end = interpreter.marks().back().offset;
  for (const auto& [begin, bytes] : interpreter.generation())
    out.generation.push_back({begin, begin + bytes});
  return out;
}

}  // namespace retort::data
