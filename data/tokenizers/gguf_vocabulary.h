// The vocabulary inside a GGUF, both ways: tokenizer.ggml.model "gpt2" (byte-level, with merges and the name
// of a pre-tokenizer in tokenizer.ggml.pre) and "llama" (SentencePiece's, with scores). Other models and
// pre-tokenizers are refused by name. Written so that llama.cpp gives the same ids:
//   pre         pattern                    normal form   notes
//   gpt-2       GPT-2's                    -
//   llama-bpe   cl100k, 3 digits           -             a whole piece in the vocabulary is one token
//   dbrx        cl100k, 3 digits           -
//   qwen2       cl100k, 1 digit            NFC
//   smollm      digits apart, then GPT-2's -
// A vocabulary over characters that came without scores gets them from its merges: minus the first rank.
// Throws DataError naming file, key and rule.
#pragma once

#include <cstdint>
#include <string>

#include "data/tokenizers/bpe_spec.h"
#include "formats/gguf.h"

namespace retort::data {

// A byte-level vocabulary that cuts text as that name says, without tokens yet. ConfigError for another name.
BpeSpec byte_level_spec(const std::string& pre);
std::vector<std::string> byte_level_names();

BpeSpec read_gguf_vocabulary(const formats::GgufFile& file);
formats::GgufMetadata to_gguf(const BpeSpec& spec);

// The metadata with as many tokens as the embedding has rows: unused ones named [PADn] at the end.
formats::GgufMetadata padded(formats::GgufMetadata metadata, int64_t rows);

}  // namespace retort::data
