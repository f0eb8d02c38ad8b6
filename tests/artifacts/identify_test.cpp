#include "artifacts/identify.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

namespace fs = std::filesystem;

class Identify : public ::testing::Test {
 protected:
  Path put(const std::string& name, std::string_view content = "") const {
    const Path path = directory_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  Path at(const std::string& name) const { return directory_ / name; }
  void expect(const std::string& name, Kind kind, const std::string& place) const {
    const Artifact found = identify(at(name));
    EXPECT_EQ(found.kind, kind) << name;
    EXPECT_EQ(found.path, at(place)) << name;
  }

  testing::TemporaryDirectory directory_;
};

TEST_F(Identify, AFileByItsFirstBytes) {
  const std::string hdf5 = std::string("\x89HDF\r\n\x1a\n", 8);
  const std::string dim640 =
      std::string("\x80\x02\x00\x00", 4) + std::string(24, '\1');  // of a llama2.c header
  for (const auto& [name, content, kind] :
       {std::tuple<std::string, std::string, Kind>{"a.gguf", "GGUF\3", Kind::kGguf},
        {"a.bin", "GGUF\3", Kind::kGguf},
        {"blob", "GGUF\3", Kind::kGguf},
        {"b.gguf", "no", Kind::kUnknown},
        {"c.bin", dim640, Kind::kLlama2c},
        {"pytorch_model.bin", "PK\3\4", Kind::kForeign},
        {"old.pt", std::string("\x80\x02\x8a\n", 4), Kind::kForeign},
        {"ggml.bin", "tjgg", Kind::kForeign},
        {"x.h5", hdf5, Kind::kHdf5},
        {"m.safetensors", "", Kind::kSafetensors},
        {"m.json", "{}", Kind::kJson},
        {"a.txt", "text", Kind::kUnknown}}) {
    const Artifact found = identify(put(name, content));
    EXPECT_EQ(found.kind, kind) << name;
    EXPECT_EQ(found.path, at(name)) << name;
    EXPECT_EQ(found.trouble.empty(), kind == Kind::kGguf || kind == Kind::kLlama2c) << name;
  }
  EXPECT_EQ(identify(at("none")).kind, Kind::kNothing);
}

TEST_F(Identify, AModelWhereItLies) {
  put("checkpoint/manifest.json");
  fs::create_directories(at("stage/checkpoints/step_00000004"));
  put("exported/model.gguf", "GGUF");
  put("hf/config.json");
  put("hf/model.safetensors");
  expect("checkpoint", Kind::kCheckpoint, "checkpoint");
  expect("stage", Kind::kCheckpoints, "stage/checkpoints");
  expect("stage/checkpoints", Kind::kCheckpoints, "stage/checkpoints");
  expect("exported", Kind::kGguf, "exported/model.gguf");
  expect("hf", Kind::kHfFolder, "hf");
  for (const char* name : {"checkpoint", "stage", "exported", "hf"})
    EXPECT_EQ(find_model(at(name)).trouble, "") << name;
}

TEST_F(Identify, DataWhereItLies) {
  put("shards/shard-00000.h5");
  put("text/validation/shard-00000.h5");
  put("capture/cache/block-00000.h5");
  put("capture/result.json");
  put("report/result.json");
  expect("shards", Kind::kShards, "shards");
  expect("text", Kind::kPrepared, "text");
  expect("capture", Kind::kTeacherCache, "capture/cache");
  expect("capture/cache", Kind::kTeacherCache, "capture/cache");
  expect("report", Kind::kStage, "report");
  EXPECT_TRUE(holds_shards(at("shards")));
  EXPECT_FALSE(holds_shards(at("text")));
  EXPECT_THAT([&] { find_model(at("text")); },
              ThrowsMessage<DataError>(HasSubstr("text: holds a prepared text, and no model")));
}

TEST_F(Identify, ARunLeadsToItsOnlyModel) {
  put("run/recipe.yaml");
  EXPECT_THAT([&] { find_model(at("run")); }, ThrowsMessage<DataError>(HasSubstr("holds no model yet")));
  put("run/text/train/shard-00000.h5");
  fs::create_directories(at("run/model/checkpoints/step_00000001"));
  fs::create_directories(at("run/model.replaced/checkpoints/step_00000001"));
  const Artifact run = identify(at("run"));
  EXPECT_EQ(run.kind, Kind::kRun);
  EXPECT_THAT(run.models, ElementsAre(at("run/model")));
  EXPECT_EQ(find_model(at("run")).path, at("run/model/checkpoints"));
  EXPECT_TRUE(is_put_aside(at("run/model.replaced.2")));
  put("run/gguf/model.gguf", "GGUF");
  EXPECT_THAT(
      [&] { find_model(at("run")); },
      ThrowsMessage<ConfigError>(HasSubstr("holds several models, name one: " + at("run/gguf").string() +
                                           ", " + at("run/model").string())));
}

TEST_F(Identify, NamesWhatOthersLeft) {
  put("torch/config.json", "{}");
  put("torch/pytorch_model.bin", "PK\3\4");
  put("bare/config.json", "{}");
  put("adapter/adapter_config.json", "{}");
  put("adapter/adapter_model.bin", "PK\3\4");
  put("quants/m-00001-of-00002.gguf", "GGUF");
  put("quants/m-00002-of-00002.gguf", "GGUF");
  for (const auto& [name, trouble] :
       {std::pair{"torch",
                  "torch: holds pytorch_model.bin and no model.safetensors; only safetensors are read"},
        {"torch/pytorch_model.bin", "is a PyTorch file"},
        {"bare", "bare: holds a config.json and no model.safetensors"},
        {"adapter", "holds adapter_model.bin and no adapter_model.safetensors"},
        {"quants", "name one of its files: m-00001-of-00002.gguf, m-00002-of-00002.gguf"}})
    EXPECT_THAT(([&, name = name] { find_model(at(name)); }), ThrowsMessage<DataError>(HasSubstr(trouble)))
        << name;
  EXPECT_EQ(identify(at("torch")).kind, Kind::kHfFolder);  // its shape can be read all the same
  put("lora/adapter_config.json", "{}");
  put("lora/adapter_model.safetensors");
  expect("lora", Kind::kPeft, "lora");
  EXPECT_THAT([&] { find_model(at("none")); }, ThrowsMessage<IoError>(HasSubstr("none: no such model")));
}

// What earlier ladders disagreed on: a model beside data is a model to all.
TEST_F(Identify, AModelComesBeforeData) {
  put("mixed/shard-00000.h5");
  put("mixed/block-00000.h5");
  put("mixed/model.gguf", "GGUF");
  expect("mixed", Kind::kGguf, "mixed/model.gguf");
  EXPECT_TRUE(holds_shards(at("mixed")));
}

}  // namespace
}  // namespace retort::artifacts
