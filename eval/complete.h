// Prompts as text to their continuations as text: tokenizer, generate(), and a TextStream for each prompt, so
// that stop texts may span tokens and what is streamed is UTF-8. Throws as generate() does. One thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "eval/generate.h"

namespace retort::eval {

struct Completion {
  std::vector<int32_t> prompt;  // as tokens
  std::string text;             // without a stop text, without an end token
  Continuation tokens;
};

// Why a model of this context cannot continue the text: "its beginning": the rule; "" when it can.
std::string prompt_misfit(const data::Tokenizer& tokenizer, const std::string& prompt, int64_t context);

// `on_text` gets each prompt's text in pieces, as soon as they are certain; where it returns false that
// prompt ends. A prompt begins with the tokenizer's prefix. The separator and each of `ends` (such as the end
// of a turn) are end tokens.
std::vector<Completion> complete(
    models::Model& model, const data::Tokenizer& tokenizer, const std::vector<std::string>& prompts,
    const SamplingOptions& options,
    const std::function<bool(size_t prompt, std::string_view text)>& on_text = {},
    const std::vector<int32_t>& ends = {});

}  // namespace retort::eval
