// Tokens that stand outside the merging: control marks and words that a file adds to its vocabulary. They are
// cut out of a text before anything else is done to it: at the leftmost place, of several the longest. Their
// flags are those of Hugging Face's tokenizers:
//   single_word     not beside a word character (\w)
//   lstrip, rstrip  takes the white space before, after it along
//   normalized      looked for in the normalized text, not in the raw one
// Finding costs O(text x longest token). Immutable; shared between threads.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace retort::data {

struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = false;
};

// A stretch of a text: a token, or (token -1) plain text.
struct AddedStretch {
  size_t begin, end;
  int32_t token;
};

class AddedTokenFinder {
 public:
  // `tokens` with an empty text are never found.
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);
  bool empty() const { return tokens_.empty(); }
  // Cuts the whole text; no stretch of plain text is empty.
  std::vector<AddedStretch> cut(std::string_view text) const;
  bool ends(std::string_view text) const;  // whether the text ends with a token

 private:
  struct Match {
    size_t begin = std::string_view::npos;
    const AddedToken* token = nullptr;
  };
  Match find(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, const AddedToken*> by_text_;
  std::array<std::vector<size_t>, 256> lengths_;  // of the tokens that begin with a byte, longest first
};

}  // namespace retort::data
