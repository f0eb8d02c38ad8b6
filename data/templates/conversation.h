// How a conversation of data is written as text, and which of it a model learns: what the assistant says, and the
// mark that ends its turn. The form is one of shipped_templates(), or a model's own chat template.
//   {% generation %} in a template says what is learned; its beginning moves to just after the generation prompt.
//   Without it assistant_spans() does (spans.h).
// A record is refused where learning it would teach something else: an answer that is not printed, or whose words
// are not, or that ends before its mark. Any thread. Throws ConfigError, IoError, DataError naming `where`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/templates/chat.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

// A run of text; `learned` is false where it is only read.
struct Span {
  std::string text;
  bool learned = true;
};

class ConversationForm {
 public:
  // `address`: a name of shipped_templates(), a .jinja file, or a model: its folder or GGUF. `date` (parse_date)
  // is what the template is told of today; a template that asks wants one. `tokenizer`: the data's, for a model
  // that has none that can be opened; null for none.
  ConversationForm(const std::string& address, const std::string& date, const Tokenizer* tokenizer);

  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }  // of the template
  bool shipped() const { return shipped_; }          // then a message is {"role", "content"}, both texts
  // Marks that want to be one token each; of a model's template those that end a turn.
  const std::vector<std::string>& marks() const { return marks_; }
  // Changes when the same conversation comes to be written otherwise.
  std::string identity() const { return identity_; }

  // Neighbouring spans that are read, or learned, are one; none is empty.
  std::vector<Span> spans(const formats::Json& messages, const std::string& where) const;

 private:
  std::vector<TextSpan> learned(const Chat& chat, const Rendered& rendered) const;

  std::string name_, text_, identity_;
  bool shipped_ = false;
  std::optional<ChatTemplate> form_;
  Chat like_;  // without messages
  std::vector<std::string> marks_;
};

}  // namespace retort::data
