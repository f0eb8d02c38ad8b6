#include "data/templates/render.h"

#include "core/error.h"
#include "data/templates/opened.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "data/templates/text.h"

namespace retort::data {
using formats::Json;

void RenderOptions::describe(Section& s) {
  s.field("name", name, "template to take where a model has several");
  s.field("date", date, "YYYY-MM-DD for templates that write the date; today when left out");
  s.field("generation_prompt", generation_prompt, "end with what opens an answer");
  s.field("continue", continue_message, "leave the last message open, for a model to continue");
}

RenderedChat render_chat(const RenderOptions& options) {
  const OpenedTemplate opened = open_template(options.source, options.name, !options.tools.is_null());
  Chat chat;
  chat.messages = options.messages;
  chat.tools = options.tools;
  chat.special = opened.special;
  chat.generation_prompt = options.generation_prompt;
  chat.now = date_or_today(options.date);
  if (options.bos) chat.special["bos_token"] = *options.bos;
  if (options.eos) chat.special["eos_token"] = *options.eos;
  if (options.continue_message) {
    RenderedChat open{render_open(opened.form, chat), std::nullopt, {}};
    if (opened.tokenizer) open.ids = opened.tokenizer->encode(open.text);
    return open;
  }
  const Rendered rendered = render(opened.form, chat);
  const std::unique_ptr<Tokenizer> bytes = make_byte_tokenizer();
  const Tokenizer& tokenizer = opened.tokenizer ? *opened.tokenizer : *bytes;
  std::vector<std::string> marks =
      opened.shipped
          ? shipped_templates().at(options.source).special
          : end_marks(opened.form, chat, tokenizer, opened.tokenizer ? opened.ends : std::vector<int32_t>());
  RenderedChat out{rendered.text, std::nullopt, {}};
  const std::vector<AssistantSpan> found = assistant_spans(opened.form, chat, rendered, marks);
  const auto characters = [&](size_t end) {
    return jinja::characters(std::string_view(rendered.text).substr(0, end), false);
  };
  for (const TextSpan& span : learned_spans(opened.form, rendered, found))
    out.spans.emplace_back(characters(span.begin), characters(span.end));
  if (opened.tokenizer) out.ids = opened.tokenizer->encode(rendered.text);
  return out;
}

Json to_json(const RenderedChat& chat) {
  return {{"text", chat.text}, {"ids", chat.ids ? Json(*chat.ids) : Json()}, {"spans", chat.spans}};
}

}  // namespace retort::data
