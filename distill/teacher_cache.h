// A teacher's signal on disk: for each token of a corpus, the teacher's distribution of the next token as a
// few labels. A directory of HDF5 files, one for each block_tokens of the corpus; docs/formats.md has the
// layout, and the bytes that a token costs. Labels are addressed by the token's place in the corpus, so batch
// size, ranks, order and packing do not matter.
//
// A block is written completely or not at all (write_durably). Opening checks format, sizes and that no block
// is missing; verify() checks digests and counts. A TeacherCache is immutable, and threads may share it.
// DataError names the file, the rule and the token.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/token_shards.h"
#include "kernels/linear_loss.h"

namespace retort::distill {

// What was captured from what; the same in all blocks of a cache.
struct CacheFacts {
  std::string kind = {};       // "sampled": with replacement, unbiased; "top_k"
  int64_t size = 0;            // draws, or k
  double temperature = 1.0;    // the distribution is softmax(logits / temperature)
  int64_t vocabulary = 0;      // up to 2^32
  std::string tokenizer = {};  // fingerprint
  std::string corpus = {};     // TokenShards::digest(), hex
  int64_t tokens = 0;          // of the corpus
  int64_t block_tokens = int64_t{1} << 20;
  std::string teacher = {};       // fingerprint() of its weights (distill/teacher.h)
  std::string teacher_name = {};  // for people; not compared
  int64_t window = 0;             // tokens that the teacher read at once, counted from each block's start
  bool isolate_documents = false;
  int64_t seed = 0;  // of the draws
  int64_t blocks() const { return (tokens + block_tokens - 1) / block_tokens; }
  int64_t tokens_of(int64_t block) const { return std::min(block_tokens, tokens - block * block_tokens); }
};

// The first difference of two captures, as "rule, got"; "" when there is none.
std::string difference(const CacheFacts& expected, const CacheFacts& got);

// A block's labels in token order, not yet packed.
struct BlockLabels {
  std::vector<uint16_t> labels;  // of each token
  std::vector<uint32_t> ids;
  std::vector<uint16_t> values;  // counts, or f16 bits of probabilities
  std::vector<uint16_t> rest;    // f16 bits; top_k only
};

Path block_path(const Path& cache, int64_t block);
void write_block(FileSystem& files, const Path& cache, const CacheFacts& facts, int64_t block,
                 const BlockLabels& labels);
// What a killed writer has left of blocks first, first + step, ..., which nobody writes now.
void remove_half_blocks(FileSystem& files, const Path& cache, int64_t first, int64_t step);
// Whether the block exists and is complete. ConfigError when it belongs to another capture; `why` becomes
// what is wrong with a damaged one.
bool block_is_done(const Path& cache, const CacheFacts& facts, int64_t block, std::string& why);

class TeacherCache {
 public:
  explicit TeacherCache(const Path& directory);
  ~TeacherCache();
  const CacheFacts& facts() const;
  const Path& directory() const;
  int64_t labels() const;  // in all
  uint64_t bytes() const;  // of all files
  // DataError unless the cache was captured from this.
  void check_corpus(const data::TokenShards& corpus) const;
  void check_teacher(const std::string& fingerprint, const std::string& name) const;
  // Blocks first, first + step, ...: ranks share the work.
  void verify(int64_t first = 0, int64_t step = 1) const;
  // Labels of the tokens at these places of the corpus, i64. A row's weights and its rest add up to 1; the
  // rest is undefined for sampled labels.
  kernels::SparseLabels read(const at::Tensor& places_N) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::distill
