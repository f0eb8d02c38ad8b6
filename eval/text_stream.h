// The text of tokens as they come, in pieces that may be printed at once: whole UTF-8 characters (bytes that
// make none become U+FFFD), and nothing that could turn out to be the beginning of a stop text. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace retort::eval {

class TextStream {
 public:
  // The tokens stand behind other text, a prompt. No stop text may be empty.
  TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops);
  std::string push(int32_t id);  // the text that is certain now; nothing more once stopped
  bool stopped() const { return stopped_; }
  std::string finish();  // what was held back, when no token follows

 private:
  std::string release(bool all);

  const data::Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string held_;  // text that is not certain
  bool stopped_ = false;
};

}  // namespace retort::eval
