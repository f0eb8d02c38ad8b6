#include "comm/tree_sum.h"

#include <gmock/gmock.h>

#include <bit>
#include <string>
#include <vector>

#include "core/random.h"

namespace retort::comm {
namespace {

// A sum that shows its own shape.
struct Write {
  std::string operator()(std::string left, std::string right) const { return "(" + left + "+" + right + ")"; }
};
struct Add {
  float operator()(float left, float right) const { return left + right; }
};

template <class Value, class AddValues>
Value sum(const std::vector<Value>& leaves) {
  TreeSum<Value, AddValues> tree;
  for (const Value& leaf : leaves) tree.push(leaf);
  return tree.finish();
}

template <class Value, class AddValues>
Value sum_of_ranks(const std::vector<Value>& leaves, size_t ranks) {
  const auto each = static_cast<int64_t>(leaves.size() / ranks);
  TreeSum<Value, AddValues> all;
  for (int64_t r = 0; r < std::ssize(leaves) / each; ++r) {
    TreeSum<Value, AddValues> own(r * each);
    for (int64_t i = 0; i < each; ++i) own.push(leaves[r * each + i]);
    const std::vector<int64_t> sizes = subtrees(r * each, (r + 1) * each);
    const std::vector<Value> nodes = own.take();
    EXPECT_EQ(nodes.size(), sizes.size());
    EXPECT_LE(std::ssize(nodes), most_subtrees(each, static_cast<int>(ranks)));
    for (size_t i = 0; i < nodes.size(); ++i) all.push(nodes[i], sizes[i]);
  }
  return all.finish();
}

std::vector<std::string> names(size_t count) {
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) out.push_back(std::to_string(i));
  return out;
}

}  // namespace

TEST(TreeSum, HasTheShapesOfItsBanner) {
  const auto shape = [](size_t leaves) { return sum<std::string, Write>(names(leaves)); };
  EXPECT_EQ(shape(1), "0");
  EXPECT_EQ(shape(2), "(0+1)");
  EXPECT_EQ(shape(3), "((0+1)+2)");
  EXPECT_EQ(shape(4), "((0+1)+(2+3))");
  EXPECT_EQ(shape(6), "(((0+1)+(2+3))+(4+5))");
  EXPECT_EQ(shape(7), "(((0+1)+(2+3))+((4+5)+6))");
}

TEST(TreeSum, IsTheSameTreeHoweverLeavesAreSplitOverRanks) {
  for (size_t ranks = 1; ranks <= 8; ++ranks)
    for (size_t each = 1; each <= 17; ++each) {
      const auto leaves = names(ranks * each);
      EXPECT_EQ((sum_of_ranks<std::string, Write>(leaves, ranks)), (sum<std::string, Write>(leaves)))
          << ranks << " ranks x " << each;
    }
}

TEST(TreeSum, SubtreesAreAsFewAsTheirRunAllows) {
  using ::testing::ElementsAre;
  EXPECT_THAT(subtrees(0, 8), ElementsAre(8));
  EXPECT_THAT(subtrees(8, 12), ElementsAre(4));
  EXPECT_THAT(subtrees(3, 6), ElementsAre(1, 2));
  EXPECT_THAT(subtrees(5, 10), ElementsAre(1, 2, 2));
  EXPECT_THAT(subtrees(1, 15), ElementsAre(1, 2, 4, 4, 2, 1));
  EXPECT_THAT(subtrees(4, 4), ElementsAre());
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int64_t leaves = 1; leaves <= 64; leaves *= 2) EXPECT_EQ(most_subtrees(leaves, ranks), 1);
  EXPECT_EQ(most_subtrees(3, 2), 2);
  EXPECT_EQ(most_subtrees(7, 8), 3);
}

TEST(TreeSum, GivesTheSameBitsHoweverLeavesAreSplitOverRanks) {
  const Random random(7, "tree");
  int differs_from_running_sum = 0;
  for (size_t ranks = 1; ranks <= 8; ++ranks)
    for (size_t each = 1; each <= 17; ++each)
      for (uint64_t trial = 0; trial < 20; ++trial) {
        std::vector<float> leaves;
        float running = 0;
        for (size_t i = 0; i < ranks * each; ++i) {
          leaves.push_back(static_cast<float>(random.normal(trial * 1000 + i)));
          running += leaves.back();
        }
        const float flat = sum<float, Add>(leaves), split = sum_of_ranks<float, Add>(leaves, ranks);
        ASSERT_EQ(std::bit_cast<uint32_t>(flat), std::bit_cast<uint32_t>(split))
            << ranks << " ranks x " << each;
        differs_from_running_sum += flat != running;
      }
  EXPECT_GT(differs_from_running_sum, 100);  // the order is visible in these bits
}

TEST(TreeSum, IsEmptyAgainAfterFinish) {
  TreeSum<float, Add> tree;
  for (float x : {1.0f, 2.0f, 3.0f}) tree.push(x);
  EXPECT_EQ(tree.finish(), 6.0f);
  tree.push(5.0f);
  tree.clear();
  tree.push(4.0f);
  EXPECT_EQ(tree.finish(), 4.0f);
}

}  // namespace retort::comm
