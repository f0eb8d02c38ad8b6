// Makes a byte-level byte-pair vocabulary out of text (Sennrich et al. 2016, algorithm 1, over bytes as in
// Radford et al. 2019): the pair of neighbours that stands most often in the text's pieces becomes a token,
// again and again; of equally frequent pairs the one of lower ids. Ids: 0 .. 255 the bytes, then the merges
// in order, then the special tokens. Counting pieces is done by several threads, merging by one; the same
// text gives the same vocabulary whatever their number, and whatever the order of files. Memory grows with
// the number of different pieces. Throws ConfigError for the options, and as data/documents.h does for files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "core/section.h"
#include "data/tokenizers/bpe_spec.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

struct BpeTrainingOptions {
  int64_t vocabulary = 32000;  // tokens in all; fewer when the text has no more pairs
  std::vector<std::string> special = {"<|endoftext|>"};  // the first one ends documents
  std::string pattern = "gpt-2";  // how text is cut (data/tokenizers/gguf_vocabulary.h has the names)
  int64_t least_count = 2;        // a rarer pair makes no token
  int64_t threads = 0;            // 0: all processors; no key of its own: in a recipe it is run.threads
  void describe(Section& s);
};

BpeSpec train_bpe(const std::vector<std::string>& files, const BpeTrainingOptions& options, Log& log);

// The same, as a tokenizer whose files are in DIRECTORY, without a prefix().
std::unique_ptr<Tokenizer> train_tokenizer(const std::vector<std::string>& texts, const Path& directory,
                                           const BpeTrainingOptions& options, FileSystem& files, Log& log);

}  // namespace retort::data
