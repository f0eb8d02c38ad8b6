#include "data/templates/chat.h"

#include "core/error.h"
#include "data/templates/text.h"

namespace retort::data {
namespace {

using formats::Json;

// The text that is left open: a message's content, or the last text among its parts.
std::string& open_text(const ChatTemplate& form, Json& message) {
  const auto content = message.find("content");
  if (content != message.end() && content->is_string()) return content->get_ref<std::string&>();
  if (content != message.end() && content->is_array())
    for (auto part = content->rbegin(); part != content->rend(); ++part)
      if (part->is_object() && part->contains("text") && part->at("text").is_string())
        return part->at("text").get_ref<std::string&>();
  fail<DataError>("{}: the last message has no text to go on with", form.name());
}

}  // namespace

Rendered render(const ChatTemplate& form, const Chat& chat) {
  check<DataError>(chat.messages.is_array() && !chat.messages.empty(),
                   "{}: a conversation must be a list of at least one message, got {}", form.name(),
                   chat.messages.is_array() ? "an empty one" : chat.messages.type_name());
  const Json prompt = chat.generation_prompt;
  TemplateVariables variables;
  for (const auto& [name, value] : chat.variables.items()) variables.emplace_back(name, &value);
  variables.insert(variables.end(), {{"messages", &chat.messages},
                                     {"tools", &chat.tools},
                                     {"documents", &chat.documents},
                                     {"add_generation_prompt", &prompt}});
  for (const auto& [name, value] : chat.special.items()) variables.emplace_back(name, &value);
  return form.render(variables, chat.now);
}

std::string render_open(const ChatTemplate& form, const Chat& chat) {
  constexpr std::string_view kTag = "CONTINUE_FINAL_MESSAGE_TAG ";
  check<ConfigError>(!chat.generation_prompt,
                     "{}: a message that is continued excludes a generation prompt", form.name());
  check<DataError>(chat.messages.is_array() && !chat.messages.empty(),
                   "{}: there is no message to go on with", form.name());
  Chat tagged = chat;
  std::string& last = open_text(form, tagged.messages.back());
  const std::string text = last;
  last += kTag;
  std::string out = render(form, tagged).text;
  const size_t tag = out.rfind(kTag.substr(0, kTag.size() - 1));
  check<DataError>(
      tag != out.npos && out.find(jinja::strip(text, nullptr, true, true)) != out.npos,
      "{}: the last message does not appear in what the template writes, so it cannot be continued",
      form.name());
  const bool spaces = std::string_view(out).substr(tag).starts_with(kTag);  // else it trims the text
  out.resize(tag);
  return spaces ? out : std::string(jinja::strip(out, nullptr, false, true));
}

std::tm parse_date(std::string_view text) {
  std::tm out{};
  int read = 0;
  char between = 0;
  const std::string copy(text);
  int fields = std::sscanf(copy.c_str(), "%4d-%2d-%2d%n", &out.tm_year, &out.tm_mon, &out.tm_mday, &read);
  if (fields == 3 && static_cast<size_t>(read) < copy.size())
    fields += std::sscanf(copy.c_str() + read, "%c%2d:%2d:%2d%n", &between, &out.tm_hour, &out.tm_min,
                          &out.tm_sec, &read) +
              0;
  const bool whole = (fields == 3 && static_cast<size_t>(read) == copy.size()) ||
                     (fields == 7 && (between == ' ' || between == 'T') && copy.size() == 19);
  check<ConfigError>(whole && out.tm_mon >= 1 && out.tm_mon <= 12 && out.tm_mday >= 1 && out.tm_mday <= 31 &&
                         out.tm_hour >= 0 && out.tm_hour < 24 && out.tm_min >= 0 && out.tm_min < 60 &&
                         out.tm_sec >= 0 && out.tm_sec < 60,
                     "a date must be YYYY-MM-DD, perhaps with HH:MM:SS, got \"{}\"", text);
  out.tm_year -= 1900;
  out.tm_mon -= 1;
  out.tm_isdst = -1;
  std::tm known = out;  // with the day of the week and of the year
  check<ConfigError>(timegm(&known) != -1 && known.tm_mday == out.tm_mday, "there is no day {}", text);
  out.tm_wday = known.tm_wday;
  out.tm_yday = known.tm_yday;
  return out;
}

std::tm date_or_today(std::string_view text) {
  if (!text.empty()) return parse_date(text);
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

}  // namespace retort::data
