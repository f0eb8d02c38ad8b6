// Runs a teacher over a corpus once and keeps its distribution of every next token as a few labels
// (distill/teacher_cache.h), drawn or the likeliest: docs/distillation.md, "Live or cached".
//
// Draw i of a token depends on (seed, the token's place in the corpus, i) alone, so an interrupted capture
// that is continued on any number of ranks writes the same bytes, as long as the teacher's logits have the
// same bits. Collective: rank r of R makes blocks r, r + R, ... and skips those that are complete. Throws
// ConfigError for blocks of another capture, NonFiniteError naming the token. z [C, V]: logits of C rows.
#pragma once

#include <atomic>
#include <functional>
#include <optional>

#include "comm/comm.h"
#include "core/log.h"
#include "core/section.h"
#include "distill/served_teacher.h"
#include "distill/teacher_cache.h"
#include "models/model.h"

namespace retort::distill {

struct CaptureOptions {
  std::string kind = "sampled";
  int64_t draws = 50, k = 64;
  double temperature = 1.0;
  std::string precision = "auto";
  int64_t block_tokens = int64_t{1} << 18;
  std::optional<ServerOptions> server = {};  // in place of a model
  int64_t size() const { return kind == "sampled" ? draws : k; }
  void describe(Section& s);
};

// Adds the labels of C consecutive tokens, the first at `place`. `logits_CV`: f32, with the cap applied.
void add_labels(const CacheFacts& facts, const at::Tensor& logits_CV, int64_t place, BlockLabels& out);

struct CaptureReport {
  int64_t made = 0, found = 0;  // blocks of this rank
  bool stopped = false;         // by `stop`: the block in progress is lost, the others are kept
};

// Adds the labels of a block; false when stopped. `done`: how many of its tokens are ready.
using MakeBlock =
    std::function<bool(int64_t block, const std::function<void(int64_t done)>& done, BlockLabels& out)>;

// `cache` is the directory of the files, which is made.
CaptureReport capture_blocks(const MakeBlock& make, const CacheFacts& facts, const Path& cache,
                             comm::Comm& comm, FileSystem& files, Log& log);

// Of a model. `rows`: windows of a forward pass.
CaptureReport capture(models::Model& teacher, const data::TokenShards& corpus, const CacheFacts& facts,
                      int64_t rows, const Path& cache, comm::Comm& comm, FileSystem& files, Log& log,
                      const std::atomic<bool>& stop);

// Of a server. The tokenizer is the corpus's.
CaptureReport capture(ServedTeacher& teacher, const data::TokenShards& corpus,
                      const data::Tokenizer& tokenizer, const CacheFacts& facts, const Path& cache,
                      comm::Comm& comm, FileSystem& files, Log& log);

// The bytes on disk that a token is expected to cost when its labels name `distinct` ids.
double cache_bytes_per_token(const CaptureOptions& options, int64_t vocabulary, double distinct);

}  // namespace retort::distill
