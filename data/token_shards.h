// Tokens on disk: a directory of HDF5 files shard-00000.h5, shard-00001.h5, ... (docs/formats.md), read through mappings:
// ids u16 or u32, starts of documents, and for fine-tuning what of them is learned. Opening checks format, version,
// types, sizes, document starts, that all shards agree and that none is missing; verify() checks digests and ids.
// Immutable after opening; any thread. Throws DataError, IoError.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

// What the documents are: texts, two answers to one prompt each, or an answer that is called good or bad.
enum class ShardKind { kText, kPairs, kRated };
std::string_view name_of(ShardKind kind);  // "text", "pairs", "rated"

// Of a loss mask.
inline constexpr uint8_t kRead = 0, kLearned = 1, kLearnedAsWorse = 2;

class TokenShards {
 public:
  explicit TokenShards(const Path& directory);
  ~TokenShards();
  int64_t size() const;  // tokens in all shards
  int64_t documents() const;
  uint64_t text_bytes() const;
  int64_t vocabulary() const;
  const std::string& tokenizer_fingerprint() const;
  const std::string& tokenizer_name() const;
  // The tokenizer that made them: by its name, or from its files beside the shards. DataError when those are
  // gone or are another's. Its prefix() is what the documents begin with.
  std::unique_ptr<Tokenizer> tokenizer() const;
  const std::vector<int32_t>& prefix() const;
  // DataError unless every token is below `rows`, those of a model's embedding; reads them all where the
  // vocabulary is larger. `where` begins the message.
  void check_rows(int64_t rows, const std::string& where) const;
  const std::string& source() const;
  uint64_t digest() const;  // of all shards' digests: names this data
  ShardKind kind() const;
  bool has_loss_mask() const;
  int64_t learned() const;  // tokens that are learned: all of them without a mask
  // Copies tokens [begin, begin + out.size()) of the concatenation.
  void read(int64_t begin, std::span<int64_t> out) const;
  // The same of the loss mask, which must be there.
  void read_loss_mask(int64_t begin, std::span<uint8_t> out) const;
  // The document that holds `position` is [start, end) of the concatenation.
  int64_t document_start(int64_t position) const;
  int64_t document_end(int64_t position) const;
  void verify() const;  // recomputes the digests; DataError names shard and block

 private:
  struct State;
  std::unique_ptr<State> state_;
};

inline constexpr int64_t kShardTokens = int64_t{1} << 26;

// Collects documents and writes shards of at most `shard_tokens` tokens, holding one shard in memory. A document's
// first piece begins with the tokenizer's prefix(), which is the caller's to put there. The
// directory, which must not exist yet, appears whole at finish(): it is written beside itself, as
// DIRECTORY.tmp, and renamed. A writer that is destroyed unfinished, or was killed, leaves its full shards,
// and the next writer of the same source and tokenizer keeps them: it must be
// given the same pieces from number pieces_done() on. The shards do not depend on where a writer ended.
// One writer for a directory at a time; one thread.
class TokenShardWriter {
 public:
  TokenShardWriter(FileSystem& files, const Path& directory, const Tokenizer& tokenizer, std::string source,
                   int64_t shard_tokens = kShardTokens, bool loss_mask = false,
                   ShardKind kind = ShardKind::kText);
  ~TokenShardWriter();
  int64_t pieces_done() const;  // calls of add() that need not be made again
  // A piece: a document or, with `continues`, more of the last one. `text_bytes` is what the ids stand for;
  // `learned` goes to the loss mask, which is there for other kinds than text too.
  void add(std::span<const int32_t> ids, uint64_t text_bytes, bool continues = false,
           uint8_t learned = kLearned);
  int64_t size() const;  // tokens so far
  void finish();         // DataError when there are no tokens, or none that is learned

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::data
