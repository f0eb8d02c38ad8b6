#include "formats/untrusted.h"

#include <gtest/gtest.h>

namespace retort::formats {
namespace {

std::optional<uint64_t> product(std::vector<int64_t> shape, uint64_t unit = 1) {
  return checked_product(shape, unit);
}

TEST(CheckedProduct, CountsWhatFits) {
  EXPECT_EQ(product({}), 1u);
  EXPECT_EQ(product({}, 4), 4u);
  EXPECT_EQ(product({3, 5}, 2), 30u);
  EXPECT_EQ(product({3, 0, 5}), 0u);
  EXPECT_EQ(product({INT64_MAX}), uint64_t{INT64_MAX});
}

TEST(CheckedProduct, RefusesWhatOverflows) {
  EXPECT_FALSE(product({INT64_MAX}, 2));
  EXPECT_FALSE(product({int64_t{1} << 32, int64_t{1} << 31}));
  EXPECT_FALSE(product({int64_t{1} << 62, 4, 0}));  // the strides would overflow
  EXPECT_FALSE(product({-1}));
  EXPECT_FALSE(product({1}, uint64_t{1} << 63));
}

TEST(Shown, EscapesAndCuts) {
  EXPECT_EQ(shown("a.b"), "\"a.b\"");
  EXPECT_EQ(shown(std::string("a\n\0\"", 4)), R"("a\x0a\x00\x22")");
  const std::string cut = shown(std::string(1000, 'x'));
  EXPECT_LT(cut.size(), 110u);
  EXPECT_NE(cut.find("(1000 bytes)"), std::string::npos);
}

}  // namespace
}  // namespace retort::formats
