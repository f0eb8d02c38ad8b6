#include "eval/conversation.h"

#include <algorithm>

#include "core/error.h"
#include "data/templates/text.h"
#include "data/tokenizers/utf8.h"
#include "eval/text_stream.h"

namespace retort::eval {
namespace {

formats::Json message(const char* role, std::string text) {
  data::check_utf8(text, "replace", "");
  return {{"role", role}, {"content", std::move(text)}};
}

// Some templates know no system turn and pass over it.
void check_system(const ConversationParts& parts, const data::Chat& with_system) {
  data::Chat chat = with_system;
  const std::string system = chat.messages.at(0).at("content");
  chat.messages.push_back(message("user", "."));
  check<ConfigError>(
      data::render(parts.form, chat).text.find(data::jinja::strip(system, nullptr, true, true)) !=
          std::string::npos,
      "{}: the template does not write a system text", parts.form.name());
}

}  // namespace

Conversation::Conversation(ConversationParts parts) : parts_(std::move(parts)), chat_(parts_.like) {
  parts_.sampling.validate();
  chat_.generation_prompt = true;
  reset();
  if (!chat_.messages.empty()) check_system(parts_, chat_);
}

void Conversation::reset() {
  chat_.messages = formats::Json::array();
  if (!parts_.system.empty()) chat_.messages.push_back(message("system", parts_.system));
}

std::vector<int32_t> Conversation::prompt(const data::Chat& chat) const {
  std::vector<int32_t> ids = parts_.tokenizer.encode(data::render(parts_.form, chat).text);
  const std::vector<int32_t> prefix = parts_.tokenizer.prefix();
  const bool begun = ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
  if (parts_.begin && !begun) ids.insert(ids.begin(), prefix.begin(), prefix.end());
  return ids;
}

Turn Conversation::say(const std::string& text, const std::function<bool(std::string_view)>& on_text) {
  data::Chat chat = chat_;
  chat.messages.push_back(message("user", text));
  const std::vector<int32_t> ids = prompt(chat);
  Turn turn{.prompt = std::ssize(ids)};
  turn.refused = turn.prompt >= parts_.model.context();
  if (turn.refused) return turn;

  TextStream stream(parts_.tokenizer, parts_.sampling.stop);
  bool wanted = true;
  const auto give = [&](const std::string& piece) {
    turn.answer += piece;
    if (wanted && on_text && !piece.empty()) wanted = on_text(piece);
  };
  GenerateHooks hooks;
  hooks.ends = parts_.ends;
  hooks.on_token = [&](size_t, int32_t id) {
    give(stream.push(id));
    return wanted && !stream.stopped();
  };
  turn.tokens = generate_on(parts_.model, read_, ids, parts_.sampling, hooks);
  give(stream.finish());
  turn.read = read_.fresh;
  chat.messages.push_back(message("assistant", turn.answer));
  chat_ = std::move(chat);
  return turn;
}

}  // namespace retort::eval
