#include "data/templates/conversation.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "data/templates/opened.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "data/templates/text.h"

namespace retort::data {
namespace {

using formats::Json;

bool blank(std::string_view text) { return jinja::strip(text, nullptr, true, true).empty(); }

// Whether a message has words or calls that its turn must show.
bool says_something(const Json& message) {
  const auto filled = [&](const char* key) {
    const auto found = message.find(key);
    if (found == message.end() || found->is_null()) return false;
    return found->is_string() ? !blank(found->get_ref<const std::string&>()) : !found->empty();
  };
  return filled("content") || filled("tool_calls");
}

// An answer whose words or calls the template drops would teach silence.
void check_answers(const ChatTemplate& form, const Json& messages, const Rendered& rendered,
                   const std::vector<AssistantSpan>& found, const std::vector<std::string>& marks) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (message.at("role") != "assistant" || !says_something(message)) continue;
    const auto span =
        std::find_if(found.begin(), found.end(), [&](const AssistantSpan& one) { return one.message == i; });
    check<DataError>(span != found.end(), "{}: does not print message {}, an answer that is to be learned",
                     form.name(), i + 1);
    std::string said = rendered.text.substr(span->learned.begin, span->learned.end - span->learned.begin);
    for (const std::string& mark : marks)
      if (said.ends_with(mark)) said.resize(said.size() - mark.size());
    check<DataError>(!blank(said), "{}: prints nothing of message {}, an answer that is to be learned",
                     form.name(), i + 1);
  }
}

}  // namespace

ConversationForm::ConversationForm(const std::string& address, const std::string& date,
                                   const Tokenizer* tokenizer)
    : name_(address) {
  if (!date.empty()) like_.now = parse_date(date);
  OpenedTemplate opened = open_template(address);
  shipped_ = opened.shipped;
  text_ = opened.text;
  form_.emplace(std::move(opened.form));
  like_.special = opened.special;
  check<ConfigError>(
      !form_->asks_date() || like_.now.has_value(),
      "[documents] chat template {} writes the date: set chat_date, or the same data would give "
      "other tokens tomorrow",
      form_->name());
  if (shipped_)
    marks_ = shipped_templates().at(address).special;
  else if (opened.tokenizer)
    marks_ = end_marks(*form_, like_, *opened.tokenizer, opened.ends);
  else if (tokenizer != nullptr)
    marks_ = end_marks(*form_, like_, *tokenizer, {});
  identity_ = fmt::format("template {} {} {}", opened.digest(), date, fmt::join(marks_, " "));
}

std::vector<Span> ConversationForm::spans(const Json& messages, const std::string& where) const {
  Chat chat = like_;
  chat.messages = messages;
  std::vector<TextSpan> parts;
  Rendered rendered;
  try {
    rendered = render(*form_, chat);
    parts = learned(chat, rendered);
  } catch (const DataError& error) {
    fail<DataError>("{}: {}", where, error.what());
  }
  std::vector<Span> out;
  size_t at = 0;
  const auto add = [&](size_t end, bool learned) {
    if (end > at && !out.empty() && out.back().learned == learned)
      out.back().text += rendered.text.substr(at, end - at);
    else if (end > at)
      out.push_back({rendered.text.substr(at, end - at), learned});
    at = std::max(at, end);
  };
  for (const TextSpan& part : parts) {
    add(part.begin, false);
    add(part.end, true);
  }
  add(rendered.text.size(), false);
  return out;
}

std::vector<TextSpan> ConversationForm::learned(const Chat& chat, const Rendered& rendered) const {
  if (shipped_) return rendered.generation;
  const std::vector<AssistantSpan> found = assistant_spans(*form_, chat, rendered, marks_);
  check_answers(*form_, chat.messages, rendered, found, marks_);
  return learned_spans(*form_, rendered, found);
}

}  // namespace retort::data
