#include "artifacts/text_shards.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {

TEST(TextShards, AreThoseOfAPartOrOfTheDirectory) {
  testing::TemporaryDirectory directory;
  const auto bytes = data::make_byte_tokenizer();
  for (const auto& [part, count] : {std::pair("out/train", 10), {"out/validation", 4}}) {
    data::TokenShardWriter writer(local_files(), directory / part, *bytes, "test");
    writer.add(std::vector<int32_t>(static_cast<size_t>(count), 65), static_cast<uint64_t>(count));
    writer.finish();
  }
  EXPECT_EQ(shards_at(directory / "out", "train")->size(), 10);
  EXPECT_EQ(shards_at(directory / "out", "validation")->size(), 4);
  EXPECT_EQ(shards_at(directory / "out" / "validation", "train")->size(), 4);

  OpenedModel model;
  model.source = "m";
  model.tokenizer = data::make_byte_tokenizer();
  const auto text = shards_at(directory / "out", "train");
  check_tokenizer(model, *text, "--text");
  model.tokenizer = data::make_stop_byte_tokenizer();
  EXPECT_THROW(check_tokenizer(model, *text, "--text"), DataError);
}

}  // namespace retort::artifacts
