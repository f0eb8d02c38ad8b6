// Which part of a rendered conversation the model has to produce: for each message of an assistant that is
// printed, from where its generation prompt ends to just after the last mark that ends a turn (docs/chat.md).
//   turn   what the template prints while its loop is at that message
//   end    after the last end mark in the turn, else after its last character that is no white space
//   begin  where messages[:i] with a generation prompt end, if that text begins the whole; else after the
//          generation prompt within the turn, or as much of it as the turn begins with; else the turn's begin
// A message that no loop prints is found by the prefixes before and after it; DataError where they are none.
// Costs a rendering a message. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "data/templates/chat.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

struct AssistantSpan {
  size_t message = 0;
  TextSpan turn, learned;
  bool marked = false;  // the turn ends with an end mark
};

// In the order of the messages; `rendered` is render(form, chat).
std::vector<AssistantSpan> assistant_spans(const ChatTemplate& form, const Chat& chat,
                                           const Rendered& rendered,
                                           const std::vector<std::string>& end_marks);

// What is learned of them: with {% generation %} in the template what that holds, from just after the
// generation prompt; else their own spans. In the order of the text. DataError where {% generation %} ends before
// the mark that ends a turn, which would then never be learned.
std::vector<TextSpan> learned_spans(const ChatTemplate& form, const Rendered& rendered,
                                    const std::vector<AssistantSpan>& found);

// The texts of the marks that end turns: what the template prints after an answer and the tokenizer has as a
// control token; eos_token of `special`; and `ends`, ids that the model's files name.
std::vector<std::string> end_marks(const ChatTemplate& form, const Chat& like, const Tokenizer& tokenizer,
                                   const std::vector<int32_t>& ends);

// The tokens that end a turn in the tokenizer's own chat template; none without one.
std::vector<int32_t> turn_ends(const Tokenizer& tokenizer);

}  // namespace retort::data
