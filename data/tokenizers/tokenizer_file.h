// Where a tokenizer lies, by names alone: a tokenizer.json, a tokenizer.model (SentencePiece's or
// tiktoken's), or a vocabulary with its merges beside it. Nothing is read; what cannot be looked at is not
// there. Any thread.
#pragma once

#include "core/file.h"

namespace retort::data {

struct FilePair {
  const char* vocabulary;
  const char* merges;
};
inline constexpr FilePair kFilePairs[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
bool is_of_pair(const Path& file);  // named as one of them

// Of a folder the first that it has, in the order above; of a file itself, where its name says so. Else "".
Path tokenizer_file(const Path& path);

}  // namespace retort::data
