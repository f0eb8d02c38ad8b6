// From tokens back to text, as the "decoder" of a tokenizer.json describes it: ByteLevel, Metaspace, Replace
// {pattern: {String}, content}, ByteFallback, Fuse, Strip {content, start, stop 0} after a Fuse, a Sequence
// of them, or null. Others are refused by name (DataError with `source`). Text comes back as bytes: tokens
// that hold parts of a character join to it, and what is no UTF-8 stays as it is, where Hugging Face's
// tokenizers put U+FFFD. A Metaspace takes one leading space off, not all of them. Immutable; shared between
// threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace retort::data {

class TokenDecoder {
 public:
  TokenDecoder(const formats::Json& description, const std::string& source);
  // What a token of the vocabulary writes, wherever it is.
  std::string bytes(std::string_view token) const;
  // Takes off a whole text what the decoder takes off its start.
  void strip(std::string& text) const;
  // Whether a text loses a leading space that encoding put there.
  bool strips() const { return !strip_.empty(); }

 private:
  struct Replacement {
    std::string pattern, content;
  };
  void add(const formats::Json& description, const std::string& source);

  bool byte_level_ = false, byte_fallback_ = false, fused_ = false;
  std::vector<Replacement> replacements_;
  std::string strip_;
  int64_t strip_count_ = 0;
  double growth_ = 1.0;
};

// The byte of a token <0xNN> (upper case).
std::optional<char> byte_of_token(std::string_view token);
std::string byte_token(unsigned char byte);

}  // namespace retort::data
