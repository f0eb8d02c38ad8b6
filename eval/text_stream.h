// The text of tokens as they come, in pieces that can be printed at once: whole UTF-8 characters (bytes that
// make none become U+FFFD), and nothing that could be the beginning of a stop text. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace retort::eval {

class TextStream {
 public:
  // The tokens follow other text, a prompt. No stop text may be empty.
  TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops);
  std::string push(int32_t id);  // the text that is now certain; none once stopped
  bool stopped() const { return stopped_; }
  std::string finish();  // what was held back; no token may follow

 private:
  std::string release(bool all);

  const data::Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string held_;  // text that is not certain yet
  bool stopped_ = false;
};

}  // namespace retort::eval
