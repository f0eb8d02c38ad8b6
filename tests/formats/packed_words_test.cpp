#include "formats/packed_words.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::formats {

TEST(PackedWords, TheFirstCodeIsLowest) {
  const at::Tensor four = pack_words(at::arange(1, 10, at::kInt).view({1, 9}), 4);
  ASSERT_EQ(four.sizes().vec(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(static_cast<uint32_t>(four[0][0].item<int32_t>()), 0x87654321u);  // the sign bit too
  EXPECT_EQ(four[0][1].item<int32_t>(), 9);                                   // and zeros after it
  const at::Tensor eight = pack_words(at::tensor({1, 2, 3, 255}, at::kInt).view({1, 4}), 8);
  EXPECT_EQ(static_cast<uint32_t>(eight[0][0].item<int32_t>()), 0xFF030201u);
}

TEST(PackedWords, ComeBack) {
  for (const int64_t bits : {1, 2, 4, 8, 16})
    for (const int64_t count : {1, 7, 32, 33}) {
      const at::Tensor codes = at::arange(3 * count, at::kInt).mul(2654435761 % 65521).remainder(1 << bits);
      const at::Tensor rows = codes.view({3, count}).to(at::kInt);
      const at::Tensor words = pack_words(rows, bits);
      EXPECT_EQ(words.scalar_type(), at::kInt);
      EXPECT_EQ(words.size(1), (count * bits + 31) / 32);
      EXPECT_TRUE(testing::same_bits(unpack_words(words, bits, count), rows)) << bits << " " << count;
    }
}

TEST(PackedWords, RefuseWhatDoesNotFit) {
  const at::Tensor codes = at::full({1, 4}, 16, at::kInt);
  EXPECT_THROW(pack_words(codes, 4), ShapeError);
  EXPECT_THROW(pack_words(-codes, 8), ShapeError);
  EXPECT_THROW(pack_words(codes, 5), ShapeError);
  EXPECT_THROW(unpack_words(pack_words(codes, 8), 8, 5), DataError);
}

}  // namespace retort::formats
