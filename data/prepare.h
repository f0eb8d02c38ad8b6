// Text files to token shards, once: DIRECTORY/train and DIRECTORY/validation.
// The split is fixed and needs no seed: the last share of every file, from the start of a line, is for
// validation. So one file works, and neither the order of files nor another file moves a cut.
// Each file gives one document to each part. Text is bytes; UTF-8 is not asked for.
// A finished part made from the same text, tokenizer and share is recognised by its digest, verified and
// kept; other content in its place is an error, never overwritten. One process at a time prepares a
// directory. Throws ConfigError, IoError (a file is missing), DataError (a file is empty, or the text is too
// short).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "core/section.h"

namespace retort::data {

struct PrepareOptions {
  std::string tokenizer = "bytes";
  std::vector<std::string> text;  // files; no key of its own: in a recipe they are run.text
  double validation = 0.1;        // share of every file's bytes; 0: no validation part
  void describe(Section& s);
};

struct PreparedPart {
  Path directory;  // of token shards; empty when the part is not wanted
  int64_t tokens = 0, documents = 0;
  uint64_t bytes = 0;
  bool kept = false;  // was there already
};

struct PrepareReport {
  PreparedPart train, validation;
};

// `window`: tokens of one training row; a training part shorter than that is an error.
PrepareReport prepare(const PrepareOptions& options, const Path& directory, int64_t window, FileSystem& files,
                      Log& log);

}  // namespace retort::data
