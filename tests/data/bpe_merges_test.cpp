#include "data/tokenizers/bpe_merges.h"

#include <gtest/gtest.h>

#include <random>

#include "data/tokenizers/bpe_spec.h"
#include "data/tokenizers/piece_cache.h"

namespace retort::data {
namespace {

// The definition: the lowest rank first, the leftmost of equals, one pair at a time.
std::vector<int32_t> merge_plainly(std::vector<int32_t> symbols, const std::vector<Merge>& merges) {
  while (true) {
    size_t best = merges.size(), place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      for (size_t rank = 0; rank < merges.size(); ++rank)
        if (merges[rank].left == symbols[i] && merges[rank].right == symbols[i + 1] && rank < best)
          best = rank, place = i;
    if (best == merges.size()) return symbols;
    symbols[place] = merges[best].joined;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(place) + 1);
  }
}

std::vector<Merge> random_merges(std::mt19937& random, int32_t letters, int32_t count) {
  std::vector<Merge> merges;
  for (int32_t i = 0; i < count; ++i) {
    const auto made = static_cast<uint32_t>(letters + i);
    merges.push_back(
        {static_cast<int32_t>(random() % made), static_cast<int32_t>(random() % made), letters + i});
  }
  std::shuffle(merges.begin(), merges.end(), random);  // ranks that no training would give
  return merges;
}

}  // namespace

TEST(BpeMerges, ShortAndLongPiecesFollowTheDefinition) {
  std::mt19937 random(3);
  BpeMerges::Scratch scratch;
  for (int round = 0; round < 60; ++round) {
    std::vector<Merge> merges = random_merges(random, 3, 12);
    // Where a pair stands twice the later rule holds: the definition sees one of them.
    for (size_t i = 0; i < merges.size(); ++i)
      for (size_t j = i + 1; j < merges.size(); ++j)
        if (merges[i].left == merges[j].left && merges[i].right == merges[j].right)
          merges.erase(merges.begin() + static_cast<ptrdiff_t>(j--));
    std::vector<Merge> many = merges;  // so many that a heap takes the place of buckets
    for (int32_t i = 0; i < 2000; ++i) many.push_back({1000 + i, 1000, 4000 + i});
    const BpeMerges rules(merges), of_many(many);
    for (const size_t size : {0u, 1u, 2u, 7u, 48u, 49u, 130u, 1500u}) {
      if (size > 1000 && round > 5) continue;  // the definition is slow
      std::vector<int32_t> text(size);
      for (int32_t& symbol : text) symbol = static_cast<int32_t>(random() % 3);
      std::vector<int32_t> again = text;
      const auto expected = merge_plainly(text, merges);
      rules.merge(text, scratch);
      ASSERT_EQ(text, expected) << "round " << round << ", " << size << " symbols";
      of_many.merge(again, scratch);
      ASSERT_EQ(again, expected) << "round " << round << ", " << size << " symbols, many rules";
    }
  }
}

TEST(BpeMerges, TheLaterOfTwoRulesForAPairHolds) {
  const BpeMerges rules({{0, 1, 5}, {1, 0, 6}, {0, 1, 7}});
  std::vector<int32_t> text = {0, 1, 0};  // 1 0 comes first now
  BpeMerges::Scratch scratch;
  rules.merge(text, scratch);
  EXPECT_EQ(text, (std::vector<int32_t>{0, 6}));
}

TEST(BpeMerges, AnEndlessWordTakesWorkInProportion) {
  // a, aa, aaaa, ...: every symbol is merged again and again.
  std::vector<Merge> merges;
  for (int32_t i = 0; i < 20; ++i) merges.push_back({i, i, i + 1});
  const BpeMerges rules(merges);
  for (const size_t size : {size_t{1} << 10, size_t{1} << 17}) {
    std::vector<int32_t> text(size, 0);
    BpeMerges::Scratch scratch;
    rules.merge(text, scratch);
    EXPECT_EQ(text.size(), std::max(size >> 20, size_t{1}));
    // The buckets got each pair of the text, and at most two new ones a merge; each is taken out once.
    const size_t pushed = scratch.entries.size() / 2;
    EXPECT_GE(pushed, size - 1);
    EXPECT_LT(pushed, 3 * size);
    EXPECT_EQ(scratch.heap.capacity(), 0u);  // none came too late for its bucket, to be sorted in
  }
}

TEST(BpeMerges, ScoresBecomeRules) {
  //                                      0    1    2    3     4      5
  const std::vector<std::string> texts = {"a", "b", "c", "ab", "abc", "bc"};
  const auto merges = merges_of_scores(texts, {0, 0, 0, -2, -1, -3});
  std::vector<std::vector<int32_t>> got;
  for (const Merge& m : merges) got.push_back({m.left, m.right, m.joined});
  EXPECT_EQ(got, (std::vector<std::vector<int32_t>>{{0, 5, 4}, {3, 2, 4}, {0, 1, 3}, {1, 2, 5}}));
}

TEST(PieceCache, KeysAreExact) {
  const std::string text = "abcdefghijklmnopqrstuvwxyz";
  PieceCache cache;
  for (size_t size = 1; size <= PieceCache::kLongest; ++size) {
    const std::string_view piece = std::string_view(text).substr(0, size);
    const PieceCache::Key near = PieceCache::key(piece, text.size()), at_end = PieceCache::key(piece, size);
    EXPECT_EQ(near.low, at_end.low) << size;  // whatever follows the piece
    EXPECT_EQ(near.high, at_end.high) << size;
    EXPECT_TRUE(cache.find(near).empty());
    const std::vector<int32_t> ids = {static_cast<int32_t>(size), 7};
    cache.keep(near, ids);
    const auto found = cache.find(at_end);
    EXPECT_EQ(std::vector<int32_t>(found.begin(), found.end()), ids);
  }
  // A piece that ends in zeros is not the shorter one.
  cache.keep(PieceCache::key(std::string_view("a", 1), 1), std::vector<int32_t>{1});
  EXPECT_TRUE(cache.find(PieceCache::key(std::string_view("a\0", 2), 2)).empty());
  const std::vector<int32_t> many(PieceCache::kTokens + 1, 1);  // more than a line holds
  cache.keep(PieceCache::key("zzz", 3), many);
  EXPECT_TRUE(cache.find(PieceCache::key("zzz", 3)).empty());
}

}  // namespace retort::data
