// A tokenizer of a dozen tokens whose segmentations can be read off: the longest token that fits, always.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/digest.h"
#include "core/error.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::testing {

class WordTokenizer final : public data::Tokenizer {
 public:
  // `special`: ids of marks. `adds_space`: encode() puts a space before the text, as SentencePiece does.
  explicit WordTokenizer(std::vector<std::string> tokens, std::vector<int32_t> special = {},
                         bool adds_space = false)
      : tokens_(std::move(tokens)), special_(std::move(special)), adds_space_(adds_space) {}

  std::string name() const override { return "words"; }
  int64_t vocabulary() const override { return std::ssize(tokens_); }
  std::vector<int32_t> encode(std::string_view text) const override {
    std::string whole = (adds_space_ ? " " : "") + std::string(text);
    std::vector<int32_t> ids;
    for (std::string_view rest = whole; !rest.empty();) {
      int32_t best = -1;
      for (int32_t id = 0; id < vocabulary(); ++id)
        if (!token_bytes(id).empty() && !is_special(id) && rest.starts_with(token_bytes(id)) &&
            (best < 0 || token_bytes(id).size() > token_bytes(best).size()))
          best = id;
      if (best < 0) {  // an unknown byte is dropped
        rest.remove_prefix(1);
        continue;
      }
      ids.push_back(best);
      rest.remove_prefix(token_bytes(best).size());
    }
    return ids;
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += token_bytes(id);
    return text;
  }
  std::string_view token_bytes(int32_t id) const override { return tokens_.at(static_cast<size_t>(id)); }
  bool is_special(int32_t id) const override {
    return std::find(special_.begin(), special_.end(), id) != special_.end();
  }
  std::optional<int32_t> separator() const override {
    return special_.empty() ? std::nullopt : std::optional(special_[0]);
  }
  std::string fingerprint() const override {
    return hex(xxh3(fmt::format("words {}", fmt::join(tokens_, "|"))));
  }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }

 private:
  std::vector<std::string> tokens_;
  std::vector<int32_t> special_;
  bool adds_space_;
};

}  // namespace retort::testing
