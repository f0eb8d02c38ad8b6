#include "data/batch_stream.h"

#include <algorithm>
#include <cmath>
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

// Takes the labels of tokens that are only read.
void apply_loss_mask(const TokenShards& shards, int64_t begin, std::span<int64_t> labels) {
  std::vector<uint8_t> learned(
      static_cast<size_t>(std::min<int64_t>(std::ssize(labels), shards.size() - begin - 1)));
  if (learned.empty()) return;
  shards.read_loss_mask(begin + 1, learned);
  for (size_t i = 0; i < learned.size(); ++i)
    if (learned[i] == 0) labels[i] = kIgnored;
}

// The window of row `row` that starts at `begin`.
void fill_row(const TokenShards& shards, int64_t begin, int64_t row, Batch& out) {
  const int64_t tokens = out.tokens_BT.size(1), at = row * tokens;
  int64_t* ids = out.tokens_BT.mutable_data_ptr<int64_t>() + at;
  int64_t* labels = out.labels_BT.mutable_data_ptr<int64_t>() + at;
  int64_t* places = out.corpus_BT.mutable_data_ptr<int64_t>() + at;
  std::iota(places, places + tokens, begin);
  shards.read(begin, {ids, static_cast<size_t>(tokens)});
  std::copy(ids + 1, ids + tokens, labels);
  labels[tokens - 1] = kIgnored;
  if (begin + tokens < shards.size()) shards.read(begin + tokens, {labels + tokens - 1, 1});
  if (shards.has_loss_mask()) apply_loss_mask(shards, begin, {labels, static_cast<size_t>(tokens)});
  if (out.document_BT.defined())
    isolate(shards, begin, tokens, out.positions_BT.mutable_data_ptr<int64_t>() + at,
            out.document_BT.mutable_data_ptr<int64_t>() + at, labels);
}

// Documents side by side, then padding.
void fill_packed(const TokenShards& shards, std::span<const Segment> segments, int64_t row, Batch& out) {
  const int64_t tokens = out.tokens_BT.size(1);
  const auto row_of = [&](at::Tensor& tensor) { return tensor.mutable_data_ptr<int64_t>() + row * tokens; };
  int64_t *ids = row_of(out.tokens_BT), *labels = row_of(out.labels_BT), *places = row_of(out.corpus_BT),
          *positions = row_of(out.positions_BT), *documents = row_of(out.document_BT);
  std::fill(labels, labels + tokens, kIgnored);
  int64_t at = 0, document = 0;
  for (const Segment& segment : segments) {
    shards.read(segment.begin, {ids + at, static_cast<size_t>(segment.length)});
    std::copy(ids + at + 1, ids + at + segment.length, labels + at);
    if (segment.continues) shards.read(segment.begin + segment.length, {labels + at + segment.length - 1, 1});
    if (shards.has_loss_mask())
      apply_loss_mask(shards, segment.begin, {labels + at, static_cast<size_t>(segment.length)});
    std::iota(places + at, places + at + segment.length, segment.begin);
    std::iota(positions + at, positions + at + segment.length, 0);
    std::fill(documents + at, documents + at + segment.length, document++);
    at += segment.length;
  }
  std::fill(ids + at, ids + tokens, 0);
  std::fill(places + at, places + tokens, segments.front().begin);  // of no label: any place of the corpus
  std::iota(positions + at, positions + tokens, 0);
  std::fill(documents + at, documents + tokens, document);
}

// One answer, then padding.
void fill_answer(const TokenShards& shards, const Segment& segment, int64_t row, Batch& out) {
  const int64_t tokens = out.tokens_BT.size(1), length = segment.length;
  const auto row_of = [&](at::Tensor& tensor) { return tensor.mutable_data_ptr<int64_t>() + row * tokens; };
  int64_t *ids = row_of(out.tokens_BT), *labels = row_of(out.labels_BT), *places = row_of(out.corpus_BT);
  std::fill(ids, ids + tokens, 0);
  std::fill(labels, labels + tokens, kIgnored);
  std::fill(places, places + tokens, segment.begin);
  shards.read(segment.begin, {ids, static_cast<size_t>(length)});
  std::copy(ids + 1, ids + length, labels);
  apply_loss_mask(shards, segment.begin, {labels, static_cast<size_t>(length - 1)});
  std::iota(places, places + length, segment.begin);
}

Batch empty_batch(int64_t rows, int64_t tokens, bool isolate_documents) {
  const auto matrix = [&] { return at::empty({rows, tokens}, at::kLong); };
  Batch out;
  out.tokens_BT = matrix();
  out.labels_BT = matrix();
  out.corpus_BT = matrix();
  out.source_B = at::zeros({rows}, at::kLong);
  if (isolate_documents) {
    out.positions_BT = matrix();
    out.document_BT = matrix();
  }
  return out;
}

std::vector<double> weights_of(const std::vector<Source>& sources) {
  std::vector<double> weights;
  for (const Source& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

std::string limit_misfit(int64_t limit, int64_t sequence) {
  if (limit == 0 || limit >= sequence) return "";
  return fmt::format("must be 0 or at least a row's {} tokens, got {}", sequence, limit);
}

int64_t Batch::valid_labels() const { return labels_BT.ne(kIgnored).sum().item<int64_t>(); }

BatchStream::BatchStream(std::shared_ptr<const TokenShards> shards, BatchOptions options)
    : BatchStream(std::vector<Source>{{"train", std::move(shards)}}, options) {}

BatchStream::BatchStream(std::vector<Source> sources, BatchOptions options)
    : sources_(std::move(sources)), options_(options), mixture_(weights_of(sources_)) {
  check<ConfigError>(options_.sequence > 0, "[batch stream] sequence must be > 0, got {}", options_.sequence);
  check<ConfigError>(options_.rows > 0, "[batch stream] rows must be > 0, got {}", options_.rows);
  const std::string misfit = limit_misfit(options_.limit, options_.sequence);
  check<ConfigError>(misfit.empty(), "[batch stream] limit {}", misfit);
  const TokenShards& first = *sources_.front().shards;
  for (const Source& source : sources_) {
    const TokenShards& shards = *source.shards;
    check<DataError>(shards.tokenizer_fingerprint() == first.tokenizer_fingerprint(),
                     "[batch stream] sources must have one tokenizer: {} holds ids of {} ({}), {} of {} ({})",
                     source.name, shards.tokenizer_name(), shards.tokenizer_fingerprint(),
                     sources_.front().name, first.tokenizer_name(), first.tokenizer_fingerprint());
    check<ConfigError>(shards.kind() == first.kind(),
                       "[batch stream] sources must be of one kind: {} holds {}, {} holds {}", source.name,
                       name_of(shards.kind()), sources_.front().name, name_of(first.kind()));
    const int64_t used = options_.limit > 0 ? std::min(options_.limit, shards.size()) : shards.size();
    if (shards.kind() != ShardKind::kText) {
      add_answers(source, used);
      continue;
    }
    if (options_.pack) packed_.emplace_back(shards, used, options_.sequence, options_.long_documents);
    rows_.push_back(options_.pack ? packed_.back().rows() : used / options_.sequence);
    check<DataError>(!options_.pack || rows_.back() > 0,
                     "[batch stream] {} holds no document with a label that is learned (made from {})",
                     source.name, shards.source());
    check<DataError>(rows_.back() > 0, "[batch stream] a window needs {} tokens, {} holds {} (made from {})",
                     options_.sequence, source.name, shards.size(), shards.source());
  }
}

void BatchStream::add_answers(const Source& source, int64_t tokens) {
  const AnswerRows& rows = answers_.emplace_back(*source.shards, tokens, options_.sequence);
  unit_ = rows.rows_a_sample();
  check<ConfigError>(options_.rows % unit_ == 0,
                     "[batch stream] a pair is two rows of one batch: rows must be even, got {}",
                     options_.rows);
  rows_.push_back(rows.rows());
  check<DataError>(
      rows.rows() > 0,
      "[batch stream] rows of {} tokens leave none of the answers of {} (made from {}): {} are cut "
      "away, {} pairs become alike",
      options_.sequence, source.name, source.shards->source(), rows.unlearned, rows.alike);
}

BatchStream::Place BatchStream::place(int64_t sample) const {
  check(sample >= 0, "[batch stream] sample must be >= 0, got {}", sample);
  const Mixture::Place drawn = mixture_(sample / unit_);
  const auto source = static_cast<size_t>(drawn.source);
  const auto rows = static_cast<uint64_t>(rows_[source] / unit_), number = static_cast<uint64_t>(drawn.index);
  uint64_t row = number % rows;
  if (options_.shuffle) row = Permutation(rows, options_.seed, number / rows)(row);
  return {source, static_cast<int64_t>(row) * unit_ + sample % unit_};
}

std::vector<int64_t> BatchStream::taken(int64_t samples) const {
  std::vector<int64_t> out = mixture_.counts(samples / unit_);
  for (int64_t& count : out) count *= unit_;
  return out;
}

int64_t BatchStream::samples_of(double epochs) const {
  const std::vector<double> weights = weights_of(sources_);
  const double share = weights.front() / std::accumulate(weights.begin(), weights.end(), 0.0);
  return static_cast<int64_t>(std::ceil(epochs * static_cast<double>(rows_.front()) / share));
}

const PackedRows* BatchStream::packed(size_t source) const {
  return packed_.empty() ? nullptr : &packed_.at(source);
}

const AnswerRows* BatchStream::answers(size_t source) const {
  return answers_.empty() ? nullptr : &answers_.at(source);
}

Batch BatchStream::answers_batch(int64_t number) const {
  std::vector<Place> places;
  int64_t widest = 0;
  for (int64_t row = 0; row < options_.rows; ++row) {
    const Place from = places.emplace_back(place(number * options_.rows + row));
    widest = std::max(widest, answers_[from.source].row(from.row).length);
  }
  Batch out = empty_batch(options_.rows, widest, false);
  out.chosen_B = at::empty({options_.rows}, at::kBool);
  for (int64_t row = 0; row < options_.rows; ++row) {
    const Place from = places[static_cast<size_t>(row)];
    const AnswerRows& rows = answers_[from.source];
    out.samples.push_back(number * options_.rows + row);
    out.source_B.mutable_data_ptr<int64_t>()[row] = static_cast<int64_t>(from.source);
    out.chosen_B.mutable_data_ptr<bool>()[row] = rows.chosen(from.row);
    fill_answer(*sources_[from.source].shards, rows.row(from.row), row, out);
  }
  return out;
}

Batch BatchStream::batch(int64_t number) const {
  check(number >= 0, "[batch stream] batch number must be >= 0, got {}", number);
  if (!answers_.empty()) return answers_batch(number);
  Batch out = empty_batch(options_.rows, options_.sequence, options_.isolate_documents || options_.pack);
  for (int64_t row = 0; row < options_.rows; ++row) {
    out.samples.push_back(number * options_.rows + row);
    const Place from = place(out.samples.back());
    out.source_B.mutable_data_ptr<int64_t>()[row] = static_cast<int64_t>(from.source);
    const TokenShards& shards = *sources_[from.source].shards;
    if (const PackedRows* rows = packed(from.source))
      fill_packed(shards, rows->row(from.row), row, out);
    else
      fill_row(shards, from.row * options_.sequence, row, out);
  }
  return out;
}

Batch windows(const TokenShards& shards, const std::vector<int64_t>& starts, int64_t tokens,
              bool isolate_documents) {
  Batch out = empty_batch(std::ssize(starts), tokens, isolate_documents);
  for (int64_t row = 0; row < std::ssize(starts); ++row)
    fill_row(shards, starts[static_cast<size_t>(row)], row, out);
  return out;
}

}  // namespace retort::data
