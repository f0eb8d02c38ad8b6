// Batches made ahead by one thread, in order: reading and shuffling overlap the step that computes.
// One consumer thread. The stream must outlive the prefetcher.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "data/batch_stream.h"

namespace retort::data {

// Hands out stream.batch(number_of(k)) for k = first, first + 1, ..., up to `ahead` of them waiting.
class Prefetcher {
 public:
  Prefetcher(const BatchStream& stream, std::function<int64_t(int64_t)> number_of, int64_t first,
             int64_t ahead = 4);
  ~Prefetcher();
  Batch next();  // rethrows what making the batch threw, now and at every later call

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::data
