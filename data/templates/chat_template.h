// A model's chat template: a program in the part of Jinja that models use, which writes a conversation as text.
// It is read once and renders any number of conversations, by any thread, as transformers' apply_chat_template
// does, character for character (docs/chat.md). It is code from a model file: reading and rendering stay within
// TemplateLimits. Throws DataError "NAME:LINE:COLUMN: WHY" for what the language does not hold, for a limit, and
// for what the template itself refuses (raise_exception).
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/templates/limits.h"
#include "formats/json.h"

namespace retort::data {

namespace jinja {
struct Syntax;
}

// A part of a text, in bytes.
struct TextSpan {
  size_t begin = 0, end = 0;
  bool operator==(const TextSpan&) const = default;
};

// By name; of two with a name the first counts. "messages" is the conversation.
using TemplateVariables = std::vector<std::pair<std::string_view, const formats::Json*>>;

struct Rendered {
  std::string text;
  // What is printed while a loop of the template is at a message: (message, part), in order; the parts of
  // one message may be several.
  std::vector<std::pair<int32_t, TextSpan>> parts;
  size_t loops_end = 0;              // where the last loop ended
  std::vector<TextSpan> generation;  // what {% generation %} held, as transformers counts it
};

class ChatTemplate {
 public:
  // `name` is for messages.
  ChatTemplate(std::string name, std::string_view source, const TemplateLimits& limits = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  const std::string& name() const { return name_; }
  bool has_generation() const;  // {% generation %} somewhere
  bool asks_date() const;       // strftime_now()
  // `now` is what strftime_now() writes; DataError when it is asked for and missing.
  Rendered render(const TemplateVariables& variables, const std::optional<std::tm>& now = std::nullopt) const;

 private:
  std::string name_;
  TemplateLimits limits_;
  std::unique_ptr<const jinja::Syntax> syntax_;
};

}  // namespace retort::data
