// Files of text to token shards, once: DIRECTORY/train and DIRECTORY/validation.
// Files are read one after another (data/documents.h, data/pieces.h); pieces are tokenized by several threads
// in bounded memory and written in order, so the shards do not depend on the number of threads. Where the
// vocabulary has a separator, it ends every document; what the tokenizer puts before a text (Tokenizer::prefix())
// begins it, unless begin_token is off or the text has it already. Conversations get a loss mask.
// A killed preparation continues after its last full shard and ends with the same bytes. A finished part made
// from the same text, tokenizer and options is recognised by its digest, verified and kept; other content in
// its place is an error, never overwritten. One process at a time prepares a directory. Throws ConfigError,
// IoError (a file is missing), DataError (a file is empty or malformed, or the text is too short).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "core/section.h"
#include "data/documents.h"
#include "data/token_shards.h"

namespace retort::data {

struct PrepareOptions {
  std::string tokenizer = "bytes";
  std::vector<std::string> text = {};  // files
  bool begin_token = true;             // documents begin with what the tokenizer puts before a text
  double validation = 0.1;             // share that is kept for validation; 0: no validation part
  DocumentOptions documents = {};
  int64_t shard_tokens = kShardTokens;
  int64_t threads = 0;  // 0: all processors; no key of its own: in a recipe it is run.threads
  void describe(Section& s);
};

struct PreparedPart {
  Path directory;  // of token shards; empty when the part is not wanted
  int64_t tokens = 0, learned = 0, documents = 0;
  uint64_t bytes = 0, digest = 0;
  bool kept = false;  // was there already
};

struct PrepareReport {
  PreparedPart train, validation;
};

// `window`: tokens of one training row; a training part shorter than that is an error.
PrepareReport prepare(const PrepareOptions& options, const Path& directory, int64_t window, FileSystem& files,
                      Log& log);

// That of the shards, whose prefix() is what their documents begin with; throws as prepare().
std::unique_ptr<Tokenizer> prepared_tokenizer(const PrepareOptions& options);

}  // namespace retort::data
