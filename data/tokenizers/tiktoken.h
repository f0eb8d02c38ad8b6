// Vocabularies of OpenAI's making: a tiktoken file (lines of a token's bytes in base64 and its rank, which is
// its id), and GPT-2's pair of encoder.json (tokens to ids) and vocab.bpe (merges), which as vocab.json and
// merges.txt is that of other byte-level vocabularies too: what cuts text is named by `pre`. A tiktoken file
// says neither how text is cut nor what its special tokens are: both are told by the number of tokens, 128000
// being Llama 3's and 50256, 100256 OpenAI's r50k_base, cl100k_base. Throws DataError.
#pragma once

#include <string>
#include <string_view>

#include "core/file.h"
#include "data/tokenizers/bpe_spec.h"

namespace retort::data {

bool looks_like_tiktoken(std::string_view text);
BpeSpec read_tiktoken(const Path& path);
// `pre`: a name of byte_level_spec() (gguf_vocabulary.h).
BpeSpec read_gpt2_pair(const Path& vocabulary, const Path& merges, const std::string& pre);

}  // namespace retort::data
