#include "data/packing.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace retort::data {
namespace {

constexpr std::pair<const char*, LongDocuments> kLongDocuments[] = {
    {"split", LongDocuments::kSplit}, {"cut", LongDocuments::kCut}, {"drop", LongDocuments::kDrop}};

// Whether a label of the segment is learned: a document's first token is nobody's label.
bool learns(const TokenShards& shards, const Segment& segment) {
  const int64_t labels = segment.length - 1 + (segment.continues ? 1 : 0);
  if (labels == 0 || !shards.has_loss_mask()) return labels > 0;
  std::vector<uint8_t> learned(static_cast<size_t>(labels));
  shards.read_loss_mask(segment.begin + 1, learned);
  return std::ranges::any_of(learned, [](uint8_t one) { return one != 0; });
}

// Rows by the tokens that are free in them.
class FreeRows {
 public:
  explicit FreeRows(int64_t sequence) : sequence_(sequence) {}
  // The fullest row with that much room, else a new one; it takes the tokens.
  int64_t take(int64_t tokens) {
    int64_t row = rows_, free = sequence_;
    if (const auto found = by_free_.lower_bound(tokens); found != by_free_.end()) {
      free = found->first;
      row = found->second.back();
      found->second.pop_back();
      if (found->second.empty()) by_free_.erase(found);
    } else {
      ++rows_;
    }
    if (free > tokens) by_free_[free - tokens].push_back(row);
    return row;
  }
  int64_t rows() const { return rows_; }

 private:
  int64_t sequence_, rows_ = 0;
  std::map<int64_t, std::vector<int64_t>> by_free_;
};

}  // namespace

LongDocuments long_documents(const std::string& name) {
  return std::ranges::find(kLongDocuments, name, [](const auto& row) { return row.first; })->second;
}

std::vector<std::string> long_document_names() {
  std::vector<std::string> names;
  for (const auto& row : kLongDocuments) names.emplace_back(row.first);
  return names;
}

PackedRows::PackedRows(const TokenShards& shards, int64_t tokens, int64_t sequence, LongDocuments longer)
    : sequence_(sequence) {
  std::vector<Segment> pieces;
  for (int64_t begin = 0; begin < tokens;) {
    const int64_t end = std::min(shards.document_end(begin), tokens), length = end - begin;
    const size_t before = pieces.size();
    const bool is_long = length > sequence;
    if (is_long && longer == LongDocuments::kDrop) {
      ++dropped;
    } else if (is_long && longer == LongDocuments::kCut) {
      pieces.push_back({begin, sequence});
    } else {
      for (int64_t at = begin; at < end; at += sequence)
        pieces.push_back({at, std::min(sequence, end - at), at + sequence < end});
    }
    begin = end;
    if (pieces.size() == before) continue;
    const bool learned = std::any_of(pieces.begin() + static_cast<int64_t>(before), pieces.end(),
                                     [&](const Segment& piece) { return learns(shards, piece); });
    if (!learned) pieces.resize(before), ++unlearned;
    if (!learned) continue;
    ++documents;
    if (is_long) ++(longer == LongDocuments::kCut ? cut : split);
  }

  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Segment& a, const Segment& b) { return a.length > b.length; });
  FreeRows free(sequence);
  std::vector<int64_t> row_of;
  for (const Segment& piece : pieces) row_of.push_back(free.take(piece.length));

  std::vector<int64_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return row_of[static_cast<size_t>(a)] < row_of[static_cast<size_t>(b)];
  });
  for (const int64_t piece : order) {
    while (std::ssize(first_) <= row_of[static_cast<size_t>(piece)]) first_.push_back(std::ssize(segments_));
    segments_.push_back(pieces[static_cast<size_t>(piece)]);
  }
  first_.push_back(std::ssize(segments_));
}

std::span<const Segment> PackedRows::row(int64_t number) const {
  const auto n = static_cast<size_t>(number);
  return {segments_.data() + first_[n], static_cast<size_t>(first_[n + 1] - first_[n])};
}

double PackedRows::filled() const {
  int64_t tokens = 0;
  for (const Segment& segment : segments_) tokens += segment.length;
  return rows() == 0 ? 0.0 : static_cast<double>(tokens) / static_cast<double>(rows() * sequence_);
}

}  // namespace retort::data
