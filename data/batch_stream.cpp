#include "data/batch_stream.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace retort::data {
namespace {

// Numbers the documents of the window [begin, begin + tokens) from 0 and restarts positions in each; a
// document's last token would predict the next document's first, so its label goes.
void isolate(const TokenShards& shards, int64_t begin, int64_t tokens, int64_t* positions, int64_t* documents,
             int64_t* labels) {
  int64_t at = 0;
  for (int64_t document = 0; at < tokens; ++document) {
    const int64_t end = shards.document_end(begin + at) - begin;
    for (int64_t first = at; at < std::min(end, tokens); ++at) {
      positions[at] = at - first;
      documents[at] = document;
    }
    if (end <= tokens) labels[end - 1] = kIgnored;
  }
}

}  // namespace

int64_t Batch::valid_labels() const { return labels_BT.ne(kIgnored).sum().item<int64_t>(); }

BatchStream::BatchStream(std::shared_ptr<const TokenShards> shards, BatchOptions options)
    : shards_(std::move(shards)), options_(options), windows_(0) {
  check<ConfigError>(options_.sequence > 0, "[batch stream] sequence must be > 0, got {}", options_.sequence);
  check<ConfigError>(options_.rows > 0, "[batch stream] rows must be > 0, got {}", options_.rows);
  windows_ = shards_->size() / options_.sequence;
  check<DataError>(windows_ > 0, "[batch stream] a window needs {} tokens, the shards hold {} (made from {})",
                   options_.sequence, shards_->size(), shards_->source());
}

int64_t BatchStream::start(int64_t sample) const {
  check(sample >= 0, "[batch stream] sample must be >= 0, got {}", sample);
  const auto windows = static_cast<uint64_t>(windows_), number = static_cast<uint64_t>(sample);
  uint64_t window = number % windows;
  if (options_.shuffle) window = Permutation(windows, options_.seed, number / windows)(window);
  return static_cast<int64_t>(window) * options_.sequence;
}

Batch BatchStream::batch(int64_t number) const {
  check(number >= 0, "[batch stream] batch number must be >= 0, got {}", number);
  std::vector<int64_t> samples, starts;
  for (int64_t row = 0; row < options_.rows; ++row) {
    samples.push_back(number * options_.rows + row);
    starts.push_back(start(samples.back()));
  }
  Batch out = windows(*shards_, starts, options_.sequence, options_.isolate_documents);
  out.samples = std::move(samples);
  return out;
}

Batch windows(const TokenShards& shards, const std::vector<int64_t>& starts, int64_t tokens,
              bool isolate_documents) {
  const auto rows = static_cast<int64_t>(starts.size());
  const auto options = at::TensorOptions().dtype(at::kLong);
  Batch out;
  out.tokens_BT = at::empty({rows, tokens}, options);
  out.labels_BT = at::empty({rows, tokens}, options);
  out.corpus_BT = at::empty({rows, tokens}, options);
  if (isolate_documents) {
    out.positions_BT = at::empty({rows, tokens}, options);
    out.document_BT = at::empty({rows, tokens}, options);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = starts[static_cast<size_t>(row)], at = row * tokens;
    int64_t* ids = out.tokens_BT.mutable_data_ptr<int64_t>() + at;
    int64_t* labels = out.labels_BT.mutable_data_ptr<int64_t>() + at;
    int64_t* places = out.corpus_BT.mutable_data_ptr<int64_t>() + at;
    std::iota(places, places + tokens, begin);
    shards.read(begin, {ids, static_cast<size_t>(tokens)});
    std::copy(ids + 1, ids + tokens, labels);
    labels[tokens - 1] = kIgnored;
    if (begin + tokens < shards.size()) shards.read(begin + tokens, {labels + tokens - 1, 1});
    if (isolate_documents)
      isolate(shards, begin, tokens, out.positions_BT.mutable_data_ptr<int64_t>() + at,
              out.document_BT.mutable_data_ptr<int64_t>() + at, labels);
  }
  return out;
}

}  // namespace retort::data
