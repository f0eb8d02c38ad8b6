#include "formats/stored_tensors.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/formats/stored_tensors.h"

namespace retort::formats {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(StoredTensors, PartsBecomeOne) {
  const testing::Tensors tensors = {{"a.low", at::full({2}, 1.0)},
                                    {"a.high", at::full({2}, 10.0)},
                                    {"b.low", at::ones({3})},
                                    {"c", at::ones({1})}};
  Unpacking folder(testing::stored(tensors), "config.json");
  EXPECT_THAT(folder.modules_with(".low"), ElementsAre("a", "b"));
  EXPECT_EQ(folder.take("a.low", 1), (std::vector<int64_t>{2}));
  folder.take_shaped("a.high", {2});
  folder.offer("a", {2}, [values = folder.values()] { return values("a.low") + values("a.high"); });
  const StoredTensors plain = folder.finish();
  EXPECT_EQ(plain.where, "folder");
  EXPECT_EQ(plain.shapes.size(), 3u);
  EXPECT_FALSE(plain.shapes.contains("a.low"));
  EXPECT_TRUE(at::equal(plain.values("a"), at::full({2}, 11.0)));
  EXPECT_TRUE(at::equal(plain.values("b.low"), at::ones({3})));
}

TEST(StoredTensors, SayWhatDoesNotFit) {
  Unpacking folder(testing::stored({{"a.low", at::ones({2, 3})}}), "config.json");
  const auto message = [](auto&& body) { return ThrowsMessage<DataError>(HasSubstr(body)); };
  EXPECT_THAT([&] { folder.take("a.high", 1); }, message("folder: lacks a.high"));
  EXPECT_THAT([&] { folder.take("a.low", 1); }, message("folder: a.low must have 1 dimensions, got [2, 3]"));
  EXPECT_THAT(
      [&] {
        folder.take_shaped("a.low", {3, 2});
      },
      message("config.json: a.low must have shape [3, 2], got [2, 3]"));
  EXPECT_THAT([&] { folder.refuse("a.low", "it is low"); }, message("folder: a.low is not read: it is low"));
}

}  // namespace retort::formats
