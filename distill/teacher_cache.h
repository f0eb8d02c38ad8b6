// A teacher's signal on disk: of what follows each token of a corpus, the teacher's distribution as few
// labels. A directory of HDF5 files block-00000.h5, block-00001.h5, ..., one for each block_tokens of the
// corpus, the last one shorter. n tokens of the block, M labels of them all.
//
//   /labels   u8 or u16 [n]            labels of each token
//   /offset   u64 [ceil(n / 1024) + 1] labels before every 1024th token, then M
//   /ids      u16 or u32 [M]           u16 for vocabularies up to 65536
//   /counts   u8 or u16 [M]            sampled: draws of each id; a token's add up to `size`
//   /probs    f16 [M]                  top_k: the probability of each id, falling
//   /rest     f16 [n]                  top_k: what all other ids hold
//   attributes  format = "retort-teacher-cache", version = 1, block (its number), the members of CacheFacts,
//               data_digest (XXH3-64 of the datasets' bytes in this order, hex)
//
// /labels is u8 where `size` <= 255, /counts too. A token of sampled labels on a vocabulary up to 65536 costs
// 1 + 3 d + 1/128 bytes, d its distinct ids: 38 at d = 12; beyond 65536, 1 + 5 d: 61. Labels are addressed by
// the token's place in the corpus, so any batch size, rank count, order or packing reads the same.
//
// A block is written whole or not at all (write_durably), so what a killed capture leaves is a prefix of its
// work. Opening checks format, sizes and that no block is missing; verify() the digests and every count.
// TeacherCache is immutable and sharable between threads. DataError names file and rule, and the token.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/token_shards.h"
#include "kernels/linear_loss.h"

namespace retort::distill {

// What a cache is of; the same in all its blocks.
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
  int64_t window = 0;             // tokens that the teacher read at once, from each block's start
  bool isolate_documents = false;
  int64_t seed = 0;  // of the draws
  int64_t blocks() const { return (tokens + block_tokens - 1) / block_tokens; }
  int64_t tokens_of(int64_t block) const { return std::min(block_tokens, tokens - block * block_tokens); }
};

// The first thing in which two captures differ, as a rule with what came; "" when nothing does.
std::string difference(const CacheFacts& expected, const CacheFacts& got);

// A block's labels in token order, before they are packed.
struct BlockLabels {
  std::vector<uint16_t> labels;  // of each token
  std::vector<uint32_t> ids;
  std::vector<uint16_t> values;  // counts, or f16 bits of probabilities
  std::vector<uint16_t> rest;    // f16 bits; top_k only
};

Path block_path(const Path& cache, int64_t block);
void write_block(FileSystem& files, const Path& cache, const CacheFacts& facts, int64_t block,
                 const BlockLabels& labels);
// Whether the block is there and whole. ConfigError when it belongs to another capture; `why` says what is
// wrong with a damaged one.
bool block_is_done(const Path& cache, const CacheFacts& facts, int64_t block, std::string& why);

class TeacherCache {
 public:
  explicit TeacherCache(const Path& directory);
  ~TeacherCache();
  const CacheFacts& facts() const;
  const Path& directory() const;
  int64_t labels() const;  // in all
  uint64_t bytes() const;  // of the files
  // DataError, naming rule, path and what came, unless the cache was captured from this.
  void check_corpus(const data::TokenShards& corpus) const;
  void check_teacher(const std::string& fingerprint, const std::string& name) const;
  // Blocks first, first + step, ...: ranks share them.
  void verify(int64_t first = 0, int64_t step = 1) const;
  // Of tokens by where they stand in the corpus, i64. A row's weights and its rest add up to 1; rest is
  // undefined for sampled labels.
  kernels::SparseLabels read(const at::Tensor& places_N) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::distill
