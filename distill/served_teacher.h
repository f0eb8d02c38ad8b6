// A teacher that a server runs: the top-k labels of a cache (distill/teacher_cache.h) from the log-probabilities that
// it gives for a text's ids (distill/completion_api.h). docs/distillation.md, "A served teacher".
//
// Ids are sent, and every answer is held against them and against the text's tokenizer. A window, or a document's part
// of one where documents are isolated, is a text of its own to the server. Labels do not depend on the number
// of requests at a time, nor on which of them failed. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/section.h"
#include "data/token_shards.h"
#include "distill/completion_api.h"
#include "distill/http_client.h"
#include "distill/teacher_cache.h"

namespace retort::distill {

struct ServerOptions {
  std::string url = {}, model = {}, api = "vllm", api_key_variable = {};
  int64_t parallel = 4;
  double timeout = 600;
  int64_t retries = 6;
  double back_off = 1;
  void describe(Section& s);
};

class ServedTeacher {
 public:
  // Asks the server for its model. `rank` of `ranks`: its share of options.parallel. Throws as HttpClient, and ConfigError
  // where the environment has no key, fewer requests than ranks are allowed, or the server has too few slots.
  ServedTeacher(const ServerOptions& options, int64_t rank, int64_t ranks, uint64_t seed, Log& log,
                const std::atomic<bool>& stop);
  const ServedModel& model() const { return model_; }
  // Names what the server says of its weights: CacheFacts::teacher.
  std::string fingerprint() const;
  // Adds the labels of a block; false when stopped. `done`: how many of its tokens are ready. DataError names the window,
  // the position and the ids of an answer that does not fit.
  bool add_block(const data::TokenShards& corpus, const data::Tokenizer& tokenizer, const CacheFacts& facts,
                 int64_t block, const std::function<void(int64_t done)>& done, BlockLabels& out);

 private:
  const CompletionApi& api_;
  ServedModel model_;
  int64_t lanes_, first_slot_;
  std::unique_ptr<HttpClient> http_;
};

}  // namespace retort::distill
