// Texts as the tokens that a model is asked about, as lm-evaluation-harness cuts them (docs/evaluation.md,
// "Requests"). A context and its continuation are encoded as one text, so that a token may reach across; what is
// longer than a window loses its beginning. Pure; any thread. Throws DataError naming the document for a
// continuation that is empty or longer than a window.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace retort::eval {

struct Request {
  std::string context, continuation;
  bool operator==(const Request&) const = default;
};

// How likely is the continuation? Neither part is empty; together they have at most a window's tokens and one.
struct TokenRequest {
  std::vector<int32_t> context, continuation;
};

class RequestEncoder {
 public:
  // `window`: tokens that the model sees at most.
  RequestEncoder(const data::Tokenizer& tokenizer, int64_t window);

  TokenRequest encode(const Request& request, const std::string& where) const;
  // A whole text in windows whose parts are disjoint: the sum of their answers is the text's.
  std::vector<TokenRequest> encode_rolling(std::string_view text, const std::string& where) const;
  // A prompt that leaves room for `room` new tokens.
  std::vector<int32_t> encode_prompt(std::string_view text, int64_t room) const;
  // As a whole text: after what the tokenizer puts before one, unless the text has it already.
  std::vector<int32_t> encode_whole(std::string_view text) const;

  int32_t prefix() const { return prefix_; }  // stands for an empty context
  int64_t window() const { return window_; }

 private:
  const data::Tokenizer& tokenizer_;
  std::vector<int32_t> before_;
  std::string before_text_;
  int32_t prefix_ = 0;
  int64_t window_;
};

}  // namespace retort::eval
