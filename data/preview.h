// Token shards for somebody to look at: some documents as they are trained, with what is learned of them marked, and
// what becomes of all documents in rows of a length. A pure function of the shards and the options.
#pragma once

#include <cstdint>
#include <string>

#include "core/section.h"
#include "data/packing.h"

namespace retort::data {

struct PreviewOptions {
  int64_t samples = 3;  // evenly spread
  int64_t tokens = 500;
  int64_t sequence = 2048;
  std::string long_documents = "split";
  bool colour = false;  // learned text in green, for a terminal; else between ⟦ and ⟧
  void describe(Section& s);
};

// Characters of control are shown as U+FFFD, but for ends of lines and tabs. DataError where the shards' tokenizer is
// gone.
std::string preview(const TokenShards& shards, const PreviewOptions& options);

}  // namespace retort::data
