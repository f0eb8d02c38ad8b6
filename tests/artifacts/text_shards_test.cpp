#include "artifacts/text_shards.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {

TEST(TextShards, AreOfTheModelsTokenizer) {
  testing::TemporaryDirectory directory;
  data::TokenShardWriter writer(local_files(), directory / "out", *data::make_byte_tokenizer(), "test");
  writer.add(std::vector<int32_t>(10, 65), 10);
  writer.finish();
  const data::TokenShards text(directory / "out");
  OpenedModel model;
  model.source = "m";
  model.tokenizer = data::make_byte_tokenizer();
  check_tokenizer(model, text, "--text");
  model.tokenizer = data::make_stop_byte_tokenizer();
  EXPECT_THROW(check_tokenizer(model, text, "--text"), DataError);
}

}  // namespace retort::artifacts
