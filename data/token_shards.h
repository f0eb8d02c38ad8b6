// Tokens on disk: a directory of HDF5 files shard-00000.h5, shard-00001.h5, ... read through mappings.
//
//   /tokens     u16 or u32 [N]    contiguous, unfiltered
//   /documents  u64 [D+1]         starts of documents in this shard, then N
//   /digest     u64 [ceil(N/2^20)]  XXH3-64 of the tokens' bytes, per 2^20 tokens
//   attributes  format = "retort-tokens", version = 1, tokenizer (fingerprint), tokenizer_name, vocabulary,
//               bytes (of the text that the tokens stand for), source
//
// Opening checks format, version, sizes and that all shards agree; verify() checks the digests.
// Immutable after opening; sharable between threads. Throws DataError.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/tokenizer.h"

namespace retort::data {

class TokenShards {
 public:
  explicit TokenShards(const Path& directory);
  ~TokenShards();
  int64_t size() const;        // tokens in all shards
  int64_t documents() const;
  uint64_t text_bytes() const;
  int64_t vocabulary() const;
  const std::string& tokenizer_fingerprint() const;
  const std::string& tokenizer_name() const;
  uint64_t digest() const;     // of all shards' digests: names this data
  // Copies tokens [begin, begin + out.size()) of the concatenation.
  void read(int64_t begin, std::span<int64_t> out) const;
  // The start of the document that holds `position`, in the concatenation.
  int64_t document_start(int64_t position) const;
  void verify() const;  // recomputes the digests; DataError names shard and block

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Collects documents and writes shards of at most `shard_tokens` tokens; the directory appears whole (written
// beside it and renamed) at finish().
class TokenShardWriter {
 public:
  TokenShardWriter(FileSystem& files, Path directory, const Tokenizer& tokenizer, std::string source,
                   int64_t shard_tokens = int64_t{1} << 28);
  ~TokenShardWriter();
  void add(std::span<const int32_t> document, uint64_t text_bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::data
