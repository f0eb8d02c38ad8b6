#include "data/preferences.h"

#include <algorithm>

#include "core/error.h"
#include "data/messages.h"
#include "data/templates/text.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Json;

bool blank(std::string_view text) { return jinja::strip(text, nullptr, true, true).empty(); }

Json message(const char* role, std::string text) { return {{"role", role}, {"content", std::move(text)}}; }

// What one record is read by.
struct Source {
  const Json& record;
  const DocumentOptions& options;
  const ConversationForm& form;
  const std::string& where;

  std::string at(const std::string& field) const { return fmt::format("{} field \"{}\"", where, field); }
  Json messages(const std::string& field) const {
    return messages_of(field_of(record, field, where), form.shipped(), at(field));
  }
  bool holds_messages(const std::string& field) const { return field_of(record, field, where).is_array(); }

  Json prompt() const {
    if (options.prompt.size() == 1 && holds_messages(options.prompt.front())) {
      Json out = messages(options.prompt.front());
      check<DataError>(out.back().at("role") != "assistant",
                       "{}: a prompt must not end with the assistant's message", at(options.prompt.front()));
      return out;
    }
    std::string text;
    for (const std::string& name : options.prompt) {
      const std::string part = text_field(record, name, where);
      if (!part.empty()) text += (text.empty() ? "" : "\n\n") + part;
    }
    check<DataError>(!text.empty(), "{}: the prompt must not be empty", where);
    return Json::array({message("user", std::move(text))});
  }

  // The assistant's message.
  Json answer(const std::string& field) const {
    if (!holds_messages(field)) return message("assistant", text_field(record, field, where));
    return the_answer(messages(field), 0, field);
  }

  // That which follows the first `before` messages.
  Json the_answer(const Json& all, size_t before, const std::string& field) const {
    const std::string role = all.back().at("role");
    check<DataError>(role == "assistant", "{}: must end with the assistant's message, got role \"{}\"",
                     at(field), role);
    check<DataError>(
        all.size() == before + 1, "{}: the answer must be one message of the assistant, got {} messages {}",
        at(field), all.size() - before,
        options.prompt.empty() ? "after the beginning that chosen and rejected share"
                               : "(leave prompt out where chosen and rejected are whole conversations)");
    return all.back();
  }

  // The prompt and the answer, as they are written.
  std::vector<Span> written(Json conversation, const Json& answer, const std::string& field) const {
    const auto content = answer.find("content");
    const bool says = content != answer.end() && !content->is_null() &&
                      !(content->is_string() && blank(content->get_ref<const std::string&>()));
    check<DataError>(says || (answer.contains("tool_calls") && !answer.at("tool_calls").empty()),
                     "{}: the answer must not be empty", at(field));
    conversation.push_back(answer);
    std::vector<Span> spans = form.spans(conversation, where);
    while (!spans.empty() && !spans.back().learned)
      spans.pop_back();  // what the template adds after the answer
    check<DataError>(spans.size() > 1, "{}: template {} writes no answer after a prompt", at(field),
                     form.name());
    std::vector<Span> out{{{}, false}, std::move(spans.back())};
    spans.pop_back();
    for (const Span& span : spans) out.front().text += span.text;
    return out;
  }
};

Document pair_of(std::vector<Span> chosen, std::vector<Span> rejected, const Source& source) {
  const DocumentOptions& o = source.options;
  check<DataError>(chosen.front().text == rejected.front().text,
                   "{}: template {} writes one prompt before {} and another before {}", source.where,
                   source.form.name(), o.chosen, o.rejected);
  check<DataError>(chosen.back().text != rejected.back().text, "{}: {} and {} are the same answer",
                   source.where, o.chosen, o.rejected);
  Document out{std::move(chosen), source.where};
  out.second = out.spans.size();
  std::move(rejected.begin(), rejected.end(), std::back_inserter(out.spans));
  return out;
}

// Where two texts part, moved to before the word: a space belongs to what follows, a line break to what is
// before.
size_t parting(std::string_view a, std::string_view b) {
  const auto end =
      static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  size_t at = end;
  while (at > 0 && a[at - 1] != '\n' && !(at < end && a[at] == ' ')) --at;
  return at;
}

Document pair_of_texts(const Source& source) {
  const DocumentOptions& o = source.options;
  const std::string chosen = text_field(source.record, o.chosen, source.where),
                    rejected = text_field(source.record, o.rejected, source.where);
  check<DataError>(chosen != rejected, "{}: {} and {} are the same text", source.where, o.chosen, o.rejected);
  const size_t cut = parting(chosen, rejected);
  check<DataError>(cut > 0, "{}: {} and {} must begin alike, with the prompt", source.where, o.chosen,
                   o.rejected);
  const auto halves = [&](const std::string& text, const std::string& field) {
    check<DataError>(!blank(std::string_view(text).substr(cut)), "{}: the answer must not be empty",
                     source.at(field));
    return std::vector<Span>{{text.substr(0, cut), false}, {text.substr(cut), true}};
  };
  return pair_of(halves(chosen, o.chosen), halves(rejected, o.rejected), source);
}

Document pair_of_conversations(const Source& source) {
  const DocumentOptions& o = source.options;
  const Json chosen = source.messages(o.chosen), rejected = source.messages(o.rejected);
  check<DataError>(chosen != rejected, "{}: {} and {} are the same conversation", source.where, o.chosen,
                   o.rejected);
  size_t same = 0;
  while (same < std::min(chosen.size(), rejected.size()) && chosen[same] == rejected[same]) ++same;
  const Json prompt(Json::array_t(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(same)));
  check<DataError>(same > 0 && prompt.back().at("role") != "assistant",
                   "{}: {} and {} must begin alike, with the prompt, and part at an answer", source.where,
                   o.chosen, o.rejected);
  const auto written = [&](const Json& all, const std::string& field) {
    check<DataError>(all.size() > same, "{}: has no answer after the prompt", source.at(field));
    return source.written(prompt, source.the_answer(all, same, field), field);
  };
  return pair_of(written(chosen, o.chosen), written(rejected, o.rejected), source);
}

Document pair(const Source& source) {
  const DocumentOptions& o = source.options;
  if (!o.prompt.empty()) {
    const Json prompt = source.prompt();
    return pair_of(source.written(prompt, source.answer(o.chosen), o.chosen),
                   source.written(prompt, source.answer(o.rejected), o.rejected), source);
  }
  const bool list = source.holds_messages(o.chosen);
  check<DataError>(list == source.holds_messages(o.rejected),
                   "{}: {} and {} must both be text or both be messages", source.where, o.chosen, o.rejected);
  return list ? pair_of_conversations(source) : pair_of_texts(source);
}

bool label_of(const Source& source) {
  const Json& label = field_of(source.record, source.options.label, source.where);
  if (label.is_boolean()) return label.get<bool>();
  if (label == "true" || label == "True") return true;
  check<DataError>(label == "false" || label == "False", "{}: must be true or false, got {}",
                   source.at(source.options.label), formats::shown(label.dump()));
  return false;
}

}  // namespace

Document preference_document(const Json& record, const DocumentOptions& options, const ConversationForm& form,
                             const std::string& where) {
  const Source source{record, options, form, where};
  if (options.kind() == ShardKind::kPairs) return pair(source);
  Document out{source.written(source.prompt(), source.answer(options.response), options.response), where};
  out.bad = !label_of(source);
  return out;
}

}  // namespace retort::data
