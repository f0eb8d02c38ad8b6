#include "recipes/model_address.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::recipes {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(ModelAddress, AStageIsOneOfItsRun) {
  testing::TemporaryDirectory directory;
  const auto model = artifacts::tiny_model(1);
  artifacts::save_tiny(*model, directory / "stage", 10, std::nullopt);
  Log log(stderr, "", true);
  EXPECT_EQ(open_model("stage:stage", directory.path(), 0, log).decoder->spec(), model->spec());
  EXPECT_EQ(model_shape("stage:stage", directory.path()), model->spec());
  EXPECT_THROW(open_model("stage:stage", "", 0, log), ConfigError);
  EXPECT_FALSE(model_shape("stage:stage", "").has_value());
  EXPECT_FALSE(model_shape("stage:later", directory.path()).has_value());
  EXPECT_FALSE(model_shape("", directory.path()).has_value());
}

TEST(ModelAddress, APresetIsMadeFromItsShape) {
  Log log(stderr, "", true);
  EXPECT_EQ(model_shape("preset:llama3-70b", "")->layers, 80);
  EXPECT_THAT([&] { open_model("preset:gpt2", "", 0, log); },
              ThrowsMessage<ConfigError>(HasSubstr("unknown preset \"gpt2\"")));
}

TEST(ModelAddress, OthersArePaths) {
  testing::TemporaryDirectory directory;
  Log log(stderr, "", true);
  artifacts::save_tiny(*artifacts::tiny_model(1), directory / "stage", 10, std::nullopt);
  EXPECT_NO_THROW(open_model((directory / "stage").string(), "", 0, log));
  EXPECT_THAT([&] { open_model("/nowhere/model", "", 0, log); },
              ThrowsMessage<IoError>(HasSubstr("/nowhere/model: no such model")));
}

}  // namespace retort::recipes
