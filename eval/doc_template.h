// A template of a task's description: Jinja as chat templates have it (docs/chat.md), which writes a text of a
// document's fields. As lm-evaluation-harness has it, a field's bare name stands for the field, and a line break at
// the end stays. Immutable; any thread. Throws DataError naming the template and the place, and for a field that the
// document lacks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/json.h"

namespace retort::data::jinja {
struct Syntax;
}

namespace retort::eval {

class DocTemplate {
 public:
  DocTemplate(std::string name, const std::string& source);
  ~DocTemplate();
  DocTemplate(DocTemplate&&) noexcept;

  // The field that its whole source names, if the document has it; else the text it writes.
  formats::Json value(const formats::Json& document, const std::string& where) const;
  std::string text(const formats::Json& document, const std::string& where) const;
  // A list, or the list that its text prints.
  std::vector<std::string> list(const formats::Json& document, const std::string& where) const;

 private:
  std::string render(const formats::Json& document, const std::string& where) const;

  std::string name_, source_;
  std::unique_ptr<const data::jinja::Syntax> syntax_;
};

// A field as a text: texts as they are, numbers and others as Python prints them.
std::string text_of(const formats::Json& value);

}  // namespace retort::eval
