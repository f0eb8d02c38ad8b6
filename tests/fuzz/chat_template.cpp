// A template from a model file, which is a program: what it is read as, and a conversation with tools in it. Its own
// limits end it (data/templates/limits.h).
#include "data/templates/chat.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void chat_template(Bytes input) {
  static const formats::Json messages = formats::parse_json(R"([
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 < 3?"},
    {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "id": "c1",
      "function": {"name": "less", "arguments": {"a": 2, "b": 3.5}}}]},
    {"role": "tool", "name": "less", "content": "true"}, {"role": "assistant", "content": "Yes. \u00e9"}])",
                                                            "messages");
  static const formats::Json tools = formats::parse_json(R"([{"type": "function", "function": {"name": "less",
    "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}])",
                                                         "tools");
  accepts<DataError>("fuzzed.jinja", [&] {
    const data::ChatTemplate form("fuzzed.jinja", as_text(input));
    form.has_generation();
    data::Chat chat;
    chat.messages = messages;
    chat.tools = tools;
    chat.special = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    chat.now = data::parse_date("2026-02-03");
    accepts<DataError>("fuzzed.jinja", [&] { data::render(form, chat); });
    accepts<DataError>("fuzzed.jinja", [&] { data::render_open(form, chat); });
  });
}

}  // namespace retort::fuzz
