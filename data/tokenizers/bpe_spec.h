// A byte-pair vocabulary and everything that decides how text becomes its ids: what a tokenizer.json says.
// Every reader (tokenizer.json, SentencePiece, tiktoken, GGUF) makes one, a BpeTokenizer runs it, and the
// writers print it. Pipelines (normalizer, pre_tokenizer, post_processor, decoder) stand as tokenizer.json
// has them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/bpe_merges.h"
#include "formats/json.h"

namespace retort::data {

struct BpeSpec {
  std::string name;                 // the file it came from
  std::vector<std::string> tokens;  // by id, as tokenizer.json writes them; "" where no token has the id
  std::vector<Merge> merges;        // in rank order
  std::vector<AddedToken> added;    // by id; their texts are in `tokens` too
  std::vector<float> scores;        // by id, when the source was SentencePiece's; else empty
  std::optional<int32_t> unknown;   // for what the vocabulary lacks; without one it is left out
  bool fuse_unknown = false, byte_fallback = false, ignore_merges = false;
  formats::Json normalizer, pre_tokenizer, post_processor, decoder;

  // Facts that encoding does not use.
  std::optional<int32_t> begin, end, pad;             // the tokens of a text's begin and end
  std::string chat_template;                          // Jinja; "" for none
  std::map<std::string, std::string> chat_templates;  // others, by name
  formats::Json special = formats::Json::object();    // other tokens by name, as in tokenizer_config.json
};

// Text on its way to an id; looked up once for every merge and added token while a file is read.
class TokenIndex {
 public:
  explicit TokenIndex(const std::vector<std::string>& tokens);  // keeps views: `tokens` must stay
  std::optional<int32_t> find(std::string_view text) const;

 private:
  std::unordered_map<std::string_view, int32_t> ids_;
};

// Appends the rule left + right -> the token of their joined text; DataError naming `source` when one of the
// three is not in the vocabulary.
void add_merge(BpeSpec& spec, const TokenIndex& index, std::string_view left, std::string_view right,
               const std::string& source);

// Rules for a vocabulary that lists scores instead: each way to put a token together of two others, the
// better token first, of one token's ways those of lower ids, as published tokenizer.json files have them.
// `texts`: the tokens by id, "" for one that takes no part.
std::vector<Merge> merges_of_scores(const std::vector<std::string>& texts, const std::vector<float>& scores);

// DataError naming spec.name unless ids, merges and added tokens agree with each other and no text stands
// twice.
void validate(const BpeSpec& spec);

// Ids that the post-processor puts before and after a text.
struct TextFrame {
  std::vector<int32_t> before, after;
};
TextFrame frame_of(const BpeSpec& spec);

}  // namespace retort::data
