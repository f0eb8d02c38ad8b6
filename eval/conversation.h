// A conversation with a model. A turn is what a user says; a chat template writes it with all turns before it, and the
// model's answer joins the history. What was read in earlier turns is not read again (generate_on), as far as the
// template still writes it. Nothing is ever dropped of a conversation: a turn that leaves the context no room for an
// answer is refused and forgotten. A turn that throws is forgotten too. Throws as ChatTemplate::render and generate()
// do, and ConfigError for a system text that the template does not write. One thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/templates/chat.h"
#include "data/tokenizers/tokenizer.h"
#include "eval/generate.h"

namespace retort::eval {

// Models and the like outlive the conversation.
struct ConversationParts {
  models::Model& model;
  const data::Tokenizer& tokenizer;
  const data::ChatTemplate& form;
  data::Chat like = {};     // without messages: special tokens, a date
  bool begin = false;       // prompts begin with the tokenizer's prefix, even where the template prints none
  std::string system = {};  // "": none of ours
  std::vector<int32_t> ends = {};  // tokens that end an answer, beside the texts of sampling.stop
  SamplingOptions sampling = {};
};

struct Turn {
  bool refused = false;  // no room: `prompt` tokens fill the context
  std::string answer = {};
  int64_t prompt = 0;  // tokens of the conversation up to the answer
  int64_t read = 0;    // of them those that the model had not read before
  Continuation tokens = {};
};

class Conversation {
 public:
  explicit Conversation(ConversationParts parts);
  // `on_text` gets the answer in pieces, as soon as they are certain; where it returns false the answer ends.
  Turn say(const std::string& text, const std::function<bool(std::string_view)>& on_text = {});
  void reset();                                                     // to the system text
  const formats::Json& messages() const { return chat_.messages; }  // [{"role", "content"}, ...]

 private:
  std::vector<int32_t> prompt(const data::Chat& chat) const;

  ConversationParts parts_;
  data::Chat chat_;
  ReadTokens read_;
};

}  // namespace retort::eval
