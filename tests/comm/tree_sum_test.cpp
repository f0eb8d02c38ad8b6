#include "comm/tree_sum.h"

#include <gtest/gtest.h>

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
  const size_t each = leaves.size() / ranks;
  std::vector<Value> sums;
  for (size_t r = 0; r < ranks; ++r)
    sums.push_back(sum<Value, AddValues>({leaves.begin() + r * each, leaves.begin() + (r + 1) * each}));
  return sum<Value, AddValues>(sums);
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
    for (size_t each = 1; each <= 16; each *= 2) {
      const auto leaves = names(ranks * each);
      EXPECT_EQ((sum_of_ranks<std::string, Write>(leaves, ranks)), (sum<std::string, Write>(leaves)))
          << ranks << " ranks x " << each;
    }
  // What the promise leaves out: a count of micro-batches that is no power of two.
  EXPECT_NE((sum_of_ranks<std::string, Write>(names(6), 2)), (sum<std::string, Write>(names(6))));
}

TEST(TreeSum, GivesTheSameBitsHoweverLeavesAreSplitOverRanks) {
  const Random random(7, "tree");
  int differs_from_running_sum = 0;
  for (size_t ranks = 1; ranks <= 8; ++ranks)
    for (size_t each = 1; each <= 16; each *= 2)
      for (uint64_t trial = 0; trial < 50; ++trial) {
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
