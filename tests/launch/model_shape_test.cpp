#include "launch/model_shape.h"

#include "core/error.h"
#include "launch/export_model.h"
#include "models/spec_json.h"
#include "tests/recipes/tiny.h"
#include "tests/testing.h"

namespace retort::launch {

// Of every kind of MODEL the same shape as loading it gives.
TEST(ModelShape, IsThatOfTheLoadedModel) {
  const testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(1), directory / "stage", 3, std::nullopt);
  Log log(stderr, "", true);
  OpenedModel model = open_model((directory / "stage").string(), "", 0, log);
  const at::NoGradGuard no_grad;
  export_model(model, {.format = "gguf"}, directory / "x.gguf", local_files());
  export_model(model, {.format = "hf"}, directory / "hf", local_files());
  for (const std::string& address :
       {(directory / "stage").string(), (directory / "stage" / "checkpoints" / "step_00000003").string(),
        (directory / "x.gguf").string(), (directory / "hf").string(), std::string("stage:stage")}) {
    const auto shape = model_shape(address, directory.path());
    ASSERT_TRUE(shape.has_value()) << address;
    const OpenedModel loaded = open_model(address, directory.path(), 0, log);
    EXPECT_EQ(models::to_json(*shape), models::to_json(loaded.decoder->spec())) << address;
  }
}

TEST(ModelShape, OfAPreset) { EXPECT_EQ(model_shape("preset:llama3-70b", "")->layers, 80); }

TEST(ModelShape, OfRealFilesToo) {
  RETORT_NEEDS_TEST_DATA();
  Log log(stderr, "", true);
  for (const auto& entry : std::filesystem::directory_iterator(testing::test_data() / "models" / "tiny")) {
    const Path path = entry.path();
    const auto shape = model_shape(path.string(), "");
    ASSERT_TRUE(shape.has_value()) << path;
    const OpenedModel loaded = open_model(path.string(), "", 0, log);
    EXPECT_EQ(models::to_json(*shape), models::to_json(loaded.decoder->spec())) << path;
  }
}

TEST(ModelShape, NothingWhereNothingIsYet) {
  const testing::TemporaryDirectory directory;
  for (const char* address : {"", "stage:later", "/nowhere/model.gguf", "/nowhere"})
    EXPECT_FALSE(model_shape(address, directory.path()).has_value()) << address;
  EXPECT_FALSE(model_shape("stage:later", "").has_value());
  EXPECT_FALSE(model_shape(directory.path().string(), "").has_value());
  write_durably(local_files(), directory / "config.json", "{\"model_type\": 3}");
  EXPECT_THROW(model_shape(directory.path().string(), ""), DataError);
}

}  // namespace retort::launch
