#include "core/document_lengths.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort {
namespace {

void expect_lengths(const at::Tensor& document_BT, const std::vector<int>& cumulative, int64_t longest) {
  const DocumentLengths got = document_lengths(document_BT);
  EXPECT_TRUE(at::equal(got.cumulative, at::tensor(cumulative, at::kInt))) << got.cumulative;
  EXPECT_EQ(got.cumulative.scalar_type(), at::kInt);
  EXPECT_EQ(got.longest, longest);
}

at::Tensor rows(const std::vector<int64_t>& numbers, int64_t count) {
  return at::tensor(numbers, at::kLong).view({count, -1});
}

TEST(DocumentLengths, CountTheTokensBeforeEach) {
  expect_lengths(rows({0, 0, 1, 2, 2, 2}, 1), {0, 2, 3, 6}, 3);
  expect_lengths(rows({7}, 1), {0, 1}, 1);
}

// Though the number goes on.
TEST(DocumentLengths, EndADocumentWithItsRow) {
  expect_lengths(rows({0, 0, 0, 0}, 2), {0, 2, 4}, 2);
  expect_lengths(rows({0, 1, 1, 1, 1, 1}, 2), {0, 1, 3, 6}, 3);
  expect_lengths(at::arange(6).view({3, 2}).t(), {0, 1, 2, 3, 4, 5, 6}, 1);  // whatever the strides
}

TEST(DocumentLengths, OfNoTokensAreNone) { expect_lengths(at::zeros({2, 0}, at::kLong), {0}, 0); }

TEST(DocumentLengths, NameAWrongShape) {
  EXPECT_THROW(document_lengths(at::zeros({3}, at::kLong)), ShapeError);
}

}  // namespace
}  // namespace retort
