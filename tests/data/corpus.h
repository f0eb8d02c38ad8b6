// Small corpora for tests: documents of token ids, written as shards and opened again.
#pragma once

#include <memory>
#include <vector>

#include "core/random.h"
#include "data/token_shards.h"

namespace retort::testing {

using Documents = std::vector<std::vector<int32_t>>;

inline Documents random_documents(uint64_t seed, int64_t count, int64_t longest, int64_t vocabulary) {
  const Random random(seed, "test/documents");
  Documents out(static_cast<size_t>(count));
  uint64_t drawn = 0;
  for (auto& document : out) {
    document.resize(1 + random.below(drawn++, static_cast<uint64_t>(longest)));
    for (int32_t& id : document)
      id = static_cast<int32_t>(random.below(drawn++, static_cast<uint64_t>(vocabulary)));
  }
  return out;
}

inline std::vector<int64_t> concatenation(const Documents& documents) {
  std::vector<int64_t> out;
  for (const auto& document : documents) out.insert(out.end(), document.begin(), document.end());
  return out;
}

inline std::shared_ptr<const data::TokenShards> write_corpus(
    const Path& directory, const Documents& documents, int64_t shard_tokens = int64_t{1} << 28,
    const data::Tokenizer& tokenizer = *data::make_byte_tokenizer()) {
  data::TokenShardWriter writer(local_files(), directory, tokenizer, "test", shard_tokens);
  for (const auto& document : documents) writer.add(document, document.size());
  writer.finish();
  return std::make_shared<const data::TokenShards>(directory);
}

}  // namespace retort::testing
