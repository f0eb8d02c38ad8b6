#include "data/chat_template.h"

namespace retort::data {
namespace {

void append(std::vector<Span>& spans, const std::string& text, bool learned) {
  if (text.empty()) return;
  if (!spans.empty() && spans.back().learned == learned)
    spans.back().text += text;
  else
    spans.push_back({text, learned});
}

}  // namespace

const Registry<ChatTemplate>& chat_templates() {
  const auto chatml = [](const std::string& role) {
    return Turn{role, "<|im_start|>" + role + "\n", "<|im_end|>", "\n"};
  };
  const auto llama3 = [](const std::string& role) {
    return Turn{role, "<|start_header_id|>" + role + "<|end_header_id|>\n\n", "<|eot_id|>", ""};
  };
  const auto phi3 = [](const std::string& role) { return Turn{role, "<|" + role + "|>\n", "<|end|>", "\n"}; };
  static const Registry<ChatTemplate> table(
      "chat template", {{"alpaca",
                         "",
                         {{"system", "", "", "\n\n"},
                          {"user", "### Instruction:\n", "", "\n\n"},
                          {"assistant", "### Response:\n", "\n\n", ""}},
                         {}},
                        {"chatml",
                         "",
                         {chatml("system"), chatml("user"), chatml("assistant")},
                         {"<|im_start|>", "<|im_end|>"}},
                        {"llama3",
                         "<|begin_of_text|>",
                         {llama3("system"), llama3("user"), llama3("assistant")},
                         {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
                        {"phi3",
                         "",
                         {phi3("system"), phi3("user"), phi3("assistant")},
                         {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}},
                        {"gemma",
                         "<bos>",
                         {{"user", "<start_of_turn>user\n", "<end_of_turn>", "\n"},
                          {"assistant", "<start_of_turn>model\n", "<end_of_turn>", "\n"}},
                         {"<bos>", "<start_of_turn>", "<end_of_turn>"}}});
  return table;
}

std::vector<Span> render(const ChatTemplate& form, const std::vector<Message>& messages,
                         const std::string& where) {
  std::vector<Span> spans;
  append(spans, form.begin, false);
  for (const Message& message : messages) {
    const Turn* turn = nullptr;
    std::vector<std::string> roles;
    for (const Turn& row : form.turns) {
      roles.push_back(row.role);
      if (row.role == message.role) turn = &row;
    }
    check<DataError>(turn != nullptr, "{}: a role of template {} must be one of {}, got \"{}\"{}", where,
                     form.name, fmt::join(roles, ", "), message.role, did_you_mean(message.role, roles));
    const bool learned = message.role == "assistant";
    append(spans, turn->before, false);
    append(spans, message.content, learned);
    append(spans, turn->stop, learned);
    append(spans, turn->after, false);
  }
  return spans;
}

}  // namespace retort::data
