// tokenizer.json, the file of Hugging Face's tokenizers, both ways. Read: a model of type BPE (Unigram,
// WordPiece and WordLevel are refused by name), merges as "a b" or ["a", "b"], added tokens with their flags,
// and the pipelines that normalizer.h, pre_tokenizer.h and token_decoder.h name; and the files beside it
// (companions.h). Its own pipelines count, whatever class tokenizer_config.json names. An id may be missing,
// but no more of them than there are tokens. Throws DataError naming file and key.
#pragma once

#include <map>
#include <string>

#include "core/file.h"
#include "data/tokenizers/bpe_spec.h"

namespace retort::data {

BpeSpec read_tokenizer_json(const Path& path);

// tokenizer.json and tokenizer_config.json by name; read_tokenizer_json() of them gives the same ids.
std::map<std::string, std::string> to_hf_files(const BpeSpec& spec);

// A post_processor that puts ids before and after a text; null for none.
formats::Json template_of(const BpeSpec& spec, const TextFrame& frame);

// The end token by its usual names, where no file says it: of special tokens only.
void guess_ends(BpeSpec& spec);

}  // namespace retort::data
