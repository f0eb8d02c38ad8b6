#include "data/templates/spans.h"

#include <algorithm>

#include "core/error.h"
#include "data/templates/text.h"

namespace retort::data {
namespace {

using formats::Json;

std::optional<TextSpan> turn_of(const Rendered& rendered, size_t message) {
  std::optional<TextSpan> out;
  for (const auto& [index, part] : rendered.parts)
    if (static_cast<size_t>(index) == message) out = TextSpan{out ? out->begin : part.begin, part.end};
  return out;
}

// The message with its own texts replaced by a letter.
Json lettered(const Json& value, std::string_view key = "") {
  if (value.is_string()) {
    const bool kept = key == "role" || key == "type" || key == "id" || key == "name";
    const bool blank = jinja::strip(value.get_ref<const std::string&>(), nullptr, true, true).empty();
    return kept || (blank && key != "content") ? value : Json("Z");
  }
  Json out = value;
  if (value.is_array())
    for (Json& item : out) item = lettered(item, key);
  if (value.is_object())
    for (auto& [name, item] : out.items()) item = lettered(item, name);
  return out;
}

// By name, as a tokenizer's files have them.
Json special_tokens(const Tokenizer& tokenizer) {
  Json out = Json::object();
  const auto files = tokenizer.hf_files();
  const auto config = files.find("tokenizer_config.json");
  if (config == files.end()) return out;
  const Json held = formats::parse_json(config->second, config->first);
  for (const auto& [name, text] : held.items())
    if (name.ends_with("_token") && text.is_string()) out[name] = text;
  return out;
}

size_t common(std::string_view a, std::string_view b) {
  size_t n = static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  while (n > 0 && n < a.size() && (static_cast<unsigned char>(a[n]) & 0xC0) == 0x80) --n;  // whole characters
  return n;
}

// Finds the spans of one conversation.
class Finder {
 public:
  Finder(const ChatTemplate& form, const Chat& chat, const Rendered& rendered,
         const std::vector<std::string>& marks)
      : form_(form), chat_(chat), rendered_(rendered), marks_(marks), before_(chat) {
    before_.messages = Json::array();
  }

  std::vector<AssistantSpan> run() {
    std::vector<AssistantSpan> out;
    for (size_t i = 0; i < chat_.messages.size(); ++i) {
      const Json& message = chat_.messages[i];
      if (message.is_object() && message.contains("role") && message.at("role") == "assistant")
        if (std::optional<AssistantSpan> span = find(i)) out.push_back(*span);
      before_.messages.push_back(message);
    }
    return out;
  }

 private:
  std::optional<AssistantSpan> find(size_t i) {
    const std::optional<TextSpan> turn = turn_of(rendered_, i);
    if (!turn && !rendered_.parts.empty()) return std::nullopt;
    if (!turn) return between_prefixes(i);
    AssistantSpan out{i, *turn, {}, false};
    out.learned.end = end_of(*turn, out.marked);
    out.learned.begin = begin_of(i, *turn, out.learned.end);
    return out;
  }

  size_t end_of(TextSpan turn, bool& marked) const {
    const std::string_view said = text(turn);
    size_t end = 0;
    for (const std::string& mark : marks_)
      if (const size_t found = said.rfind(mark); found != said.npos && !mark.empty())
        end = std::max(end, found + mark.size());
    marked = end > 0;
    return turn.begin + (marked ? end : jinja::strip(said, nullptr, false, true).size());
  }

  size_t begin_of(size_t i, TextSpan turn, size_t end) {
    std::optional<Rendered> before;
    if (i > 0) before = try_render(before_, true);
    if (before) {
      const std::string& prefix = before->text;
      if (rendered_.text.starts_with(prefix) && turn.begin <= prefix.size() && prefix.size() <= end)
        return prefix.size();
    }
    std::optional<std::string> prompt;
    if (before) prompt = prompt_of(before_, *before);
    if (!prompt) prompt = question_prompt();
    if (!prompt || prompt->empty()) return turn.begin;
    return turn.begin + behind_prompt(i, turn, *prompt);
  }

  // Looked for in the turn as it is without the message's own words, which might hold the prompt.
  size_t behind_prompt(size_t i, TextSpan turn, const std::string& prompt) {
    std::string said(text(turn));
    Chat other = chat_;
    other.messages[i] = lettered(chat_.messages[i]);
    if (const auto rendered = try_render(other, chat_.generation_prompt))
      if (const auto part = turn_of(*rendered, i))
        said = rendered->text.substr(part->begin, part->end - part->begin);
    for (const std::optional<std::string>& whole : {std::optional(prompt), plain_prompt()})
      if (whole && !whole->empty())
        if (const size_t found = said.find(*whole); found != said.npos) return found + whole->size();
    return common(said, prompt);
  }

  // What a generation prompt adds to a conversation; nothing where it cannot be rendered.
  std::optional<std::string> prompt_of(const Chat& chat, const Rendered& with) const {
    const std::optional<Rendered> without = try_render(chat, false);
    if (!without) return std::nullopt;
    return with.text.substr(with.text.starts_with(without->text) ? without->text.size() : with.loops_end);
  }

  std::optional<std::string> asked(const Chat& like) const {
    Chat question = like;
    question.messages = Json::array({{{"role", "user"}, {"content", "What is the capital of France?"}}});
    const std::optional<Rendered> with = try_render(question, true);
    return with ? prompt_of(question, *with) : std::nullopt;
  }

  const std::optional<std::string>& question_prompt() {
    if (!question_) question_ = asked(chat_);
    return *question_;
  }

  const std::optional<std::string>& plain_prompt() {  // without tools and the like
    if (!plain_) {
      Chat plain;
      plain.special = chat_.special;
      plain.now = chat_.now;
      plain_ = asked(plain);
    }
    return *plain_;
  }

  std::optional<AssistantSpan> between_prefixes(size_t i) {
    Chat after = before_;
    after.messages.push_back(chat_.messages[i]);
    const auto first = try_render(before_, true), second = try_render(after, false);
    const bool found = first && second && rendered_.text.starts_with(first->text) &&
                       rendered_.text.starts_with(second->text) && first->text.size() <= second->text.size();
    check<DataError>(found,
                     "{}: prints message {} outside a loop over messages, so what is learned cannot be found",
                     form_.name(), i + 1);
    AssistantSpan out{i, {first->text.size(), second->text.size()}, {}, false};
    out.learned = {out.turn.begin, end_of(out.turn, out.marked)};
    return out;
  }

  std::optional<Rendered> try_render(const Chat& chat, bool prompt) const {
    if (chat.messages.empty()) return std::nullopt;
    Chat with = chat;
    with.generation_prompt = prompt;
    try {
      return render(form_, with);
    } catch (const DataError&) {  // such a beginning is none for this template
      return std::nullopt;
    }
  }

  std::string_view text(TextSpan span) const {
    return std::string_view(rendered_.text).substr(span.begin, span.end - span.begin);
  }

  const ChatTemplate& form_;
  const Chat& chat_;
  const Rendered& rendered_;
  const std::vector<std::string>& marks_;
  Chat before_;  // the messages so far
  std::optional<std::optional<std::string>> question_, plain_;
};

}  // namespace

std::vector<AssistantSpan> assistant_spans(const ChatTemplate& form, const Chat& chat,
                                           const Rendered& rendered,
                                           const std::vector<std::string>& end_marks) {
  return Finder(form, chat, rendered, end_marks).run();
}

std::vector<TextSpan> learned_spans(const ChatTemplate& form, const Rendered& rendered,
                                    const std::vector<AssistantSpan>& found) {
  std::vector<TextSpan> out;
  if (!form.has_generation())
    for (const AssistantSpan& span : found) out.push_back(span.learned);
  for (TextSpan part : rendered.generation) {
    for (const AssistantSpan& span : found) {
      if (span.turn.end <= part.begin || span.turn.begin >= part.end) continue;
      part.begin = std::max(part.begin, std::min(span.learned.begin, part.end));
      check<DataError>(!span.marked || part.end >= span.learned.end,
                       "{}: {{% generation %}} ends before the mark that ends the turn of message {}",
                       form.name(), span.message + 1);
    }
    out.push_back(part);
  }
  std::sort(out.begin(), out.end(), [](const TextSpan& a, const TextSpan& b) { return a.begin < b.begin; });
  return out;
}

std::vector<std::string> end_marks(const ChatTemplate& form, const Chat& like, const Tokenizer& tokenizer,
                                   const std::vector<int32_t>& ends) {
  std::vector<std::string> out;
  const auto add = [&](std::string mark) {
    if (!mark.empty() && std::find(out.begin(), out.end(), mark) == out.end()) out.push_back(std::move(mark));
  };
  constexpr std::string_view kWord = "Zebra";
  Chat chat = like;
  chat.generation_prompt = false;
  chat.messages = Json::array();
  for (const char* role : {"user", "assistant", "user", "assistant"})
    chat.messages.push_back({{"role", role}, {"content", kWord}});
  try {
    const Rendered rendered = render(form, chat);
    for (const size_t message : {1, 3}) {
      const std::optional<TextSpan> turn = turn_of(rendered, message);
      const size_t word = turn ? rendered.text.rfind(kWord, turn->end) : std::string::npos;
      if (word == std::string::npos || word < turn->begin) continue;
      const size_t after = word + kWord.size();
      for (const int32_t id :
           tokenizer.encode(std::string_view(rendered.text).substr(after, turn->end - after)))
        if (tokenizer.is_special(id)) {
          add(std::string(tokenizer.token_bytes(id)));
          break;
        }
    }
  } catch (
      const DataError&) {  // the template wants more than such a conversation: what the files name is left
  }
  if (like.special.contains("eos_token")) add(like.special.at("eos_token").get<std::string>());
  for (const int32_t id : ends)
    if (id >= 0 && id < tokenizer.vocabulary()) add(std::string(tokenizer.token_bytes(id)));
  return out;
}

std::vector<int32_t> turn_ends(const Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  const std::string text = tokenizer.chat_template();
  if (text.empty()) return out;
  const ChatTemplate form(tokenizer.name(), text);
  Chat like;
  like.special = special_tokens(tokenizer);
  if (form.asks_date()) like.now = std::tm{};
  for (const std::string& mark : end_marks(form, like, tokenizer, {}))
    if (const std::vector<int32_t> ids = tokenizer.encode(mark);
        ids.size() == 1 && tokenizer.is_special(ids[0]))
      out.push_back(ids[0]);
  return out;
}

}  // namespace retort::data
