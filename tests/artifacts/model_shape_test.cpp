#include "artifacts/model_shape.h"

#include <gtest/gtest.h>

#include "artifacts/export_model.h"
#include "core/error.h"
#include "models/spec_json.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {

// Of every kind of model the same shape as loading it gives.
TEST(ModelShape, IsThatOfTheLoadedModel) {
  const testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(1), directory / "run" / "stage", 3, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel model = open_model(directory / "run", log);
  export_model(model, {.format = "gguf"}, directory / "x.gguf", local_files());
  export_model(model, {.format = "hf"}, directory / "hf", local_files());
  export_model(model, {.format = "checkpoint"}, directory / "own", local_files());
  for (const char* name : {"run", "run/stage", "run/stage/checkpoints", "run/stage/checkpoints/step_00000003",
                           "x.gguf", "hf", "own"}) {
    const auto shape = model_shape(directory / name);
    ASSERT_TRUE(shape.has_value()) << name;
    EXPECT_EQ(models::to_json(*shape), models::to_json(open_model(directory / name, log).decoder->spec()))
        << name;
    EXPECT_EQ(model_tokenizer(directory / name)->name(), "bytes") << name;
    EXPECT_FALSE(model_adapters(directory / name).has_value()) << name;
  }
}

TEST(ModelShape, OfRealFilesToo) {
  RETORT_NEEDS_TEST_DATA();
  Log log(stderr, "", true);
  std::vector<Path> paths = {testing::test_data() / "models" / "stories260K" / "stories260K.bin"};
  for (const auto& entry : std::filesystem::directory_iterator(testing::test_data() / "models" / "tiny"))
    paths.push_back(entry.path());
  for (const Path& path : paths) {
    const auto shape = model_shape(path);
    ASSERT_TRUE(shape.has_value()) << path;
    EXPECT_EQ(models::to_json(*shape), models::to_json(open_model(path, log).decoder->spec())) << path;
  }
}

// config.json does not say that one feed-forward network serves all layers: the tensors that are there do.
TEST(ModelShape, SeesWhatAFolderShares) {
  const testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(1), directory / "stage", 3, std::nullopt);
  Log log(stderr, "", true);
  export_model(open_model(directory / "stage", log), {.format = "hf"}, directory / "hf", local_files());
  const Path weights = directory / "hf" / "model.safetensors";
  formats::NamedTensors kept;
  {
    const formats::SafetensorsFile file(weights);
    for (const auto& [name, entry] : file.entries())
      if (name.find("layers.1.mlp") == std::string::npos) kept.emplace_back(name, file.tensor(name).clone());
  }
  formats::write_safetensors(local_files(), weights, kept);
  EXPECT_TRUE(model_shape(directory / "hf")->share_ffn);
  EXPECT_TRUE(open_model(directory / "hf", log).decoder->spec().share_ffn);
}

TEST(ModelShape, NothingWhereNothingIsYet) {
  const testing::TemporaryDirectory directory;
  for (const char* path : {"", "/nowhere/model.gguf", "/nowhere"})
    EXPECT_FALSE(model_shape(path).has_value()) << path;
  EXPECT_FALSE(model_shape(directory.path()).has_value());
  for (const char* stage : {"a", "b"}) save_tiny(*tiny_model(1), directory / "run" / stage, 1, std::nullopt);
  EXPECT_FALSE(model_shape(directory / "run").has_value());  // of two
  write_durably(local_files(), directory / "config.json", "{\"model_type\": 3}");
  EXPECT_THROW(model_shape(directory.path()), DataError);
}

}  // namespace retort::artifacts
