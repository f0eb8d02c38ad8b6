#include "artifacts/origin.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class OriginOf : public ::testing::Test {
 protected:
  Origin of_card(const std::string& text) {
    write_durably(local_files(), directory_ / "README.md", text);
    return hf_origin(directory_.path());
  }
  testing::TemporaryDirectory directory_;
};

Origin of_gguf(const Path& path, const formats::GgufMetadata& keys) {
  formats::GgufMetadata all = {{"general.architecture", std::string("llama")}};
  all.insert(all.end(), keys.begin(), keys.end());
  formats::write_gguf(local_files(), path, all, {});
  return gguf_origin(formats::GgufFile(path));
}

}  // namespace

TEST_F(OriginOf, AFolderIsInTheFrontMatterOfItsCard) {
  EXPECT_EQ(hf_origin(directory_.path()), Origin()) << "no card";
  const Origin found = of_card(
      "---\nlibrary_name: transformers\nlicense: 'apache-2.0'\nlanguage:\n- en\nbase_model:\n- "
      "Some/Model-1.7B\n"
      "---\nlicense: mit\n");
  EXPECT_EQ(found.license, "apache-2.0");
  EXPECT_EQ(found.base_model, "Some/Model-1.7B");
  const Origin other = of_card(
      "---\r\nlicense: other\r\nlicense_name: qwen-research\r\n"
      "license_link: https://example.com/LICENSE\r\n---\r\n");
  EXPECT_EQ(other.license, "other");
  EXPECT_EQ(other.license_name, "qwen-research");
  EXPECT_EQ(other.license_link, "https://example.com/LICENSE");
}

// A malformed value is ignored, and so is one of several.
TEST_F(OriginOf, AFolderThatSaysNothingUsable) {
  for (const char* card :
       {"", "# A model\nlicense: mit\n", "---\nlicense: mit\n", "---\nlicense:\n- mit\n- gpl-3.0\n---\n",
        "---\nlicense: see the <file>\nbase_model: /home/me/model\n---\n", "---\nbase_model: a/b/c\n---\n",
        "---\nbase_model: ../model\n---\n", "---\n  license: mit\n---\n", "---\nlicense_name: mine\n---\n"})
    EXPECT_EQ(of_card(card), Origin()) << card;
}

TEST_F(OriginOf, AFolderInTheCacheOfTheHubIsTheModelOfItsName) {
  const Path folder = directory_ / "models--Some--Model" / "snapshots" / "0123abcd";
  local_files().make_directories(folder);
  write_durably(local_files(), folder / "README.md", "---\nlicense: mit\nbase_model: Its/Base\n---\n");
  EXPECT_EQ(hf_origin(folder).base_model, "Some/Model");
  EXPECT_EQ(hf_origin(folder).license, "mit");
}

// The keys are those of gguf-py's constants; tests/clients/card_check.py holds them against it.
TEST_F(OriginOf, AGgufIsInItsKeysBothWays) {
  const Origin origin{.license = "apache-2.0",
                      .license_name = "Apache License 2.0",
                      .license_link = "https://example.com/LICENSE",
                      .base_model = "Some/Model",
                      .start = {}};
  EXPECT_EQ(of_gguf(directory_ / "a.gguf", origin_keys(origin)), origin);
  const formats::GgufFile file(directory_ / "a.gguf");
  EXPECT_EQ(file.integer("general.base_model.count"), 1);
  EXPECT_EQ(file.text("general.base_model.0.name"), "Model");
  EXPECT_EQ(file.text("general.base_model.0.organization"), "Some");
  EXPECT_EQ(file.text("general.base_model.0.repo_url"), "https://huggingface.co/Some/Model");
  EXPECT_TRUE(origin_keys({}).empty());
  const std::string hub = "https://huggingface.co/";
  EXPECT_EQ(of_gguf(directory_ / "b.gguf", {{"general.base_model.0.repo_url", hub + "Its/Base"},
                                            {"general.repo_url", hub + "The/Model"}})
                .base_model,
            "The/Model");
  EXPECT_EQ(of_gguf(directory_ / "c.gguf", {{"general.license", uint32_t{3}},
                                            {"general.repo_url", std::string("https://example.com/a/b")}}),
            Origin());
}

TEST(Origin, ComesBackFromACheckpoint) {
  const Origin origin{
      .license = "mit", .license_name = {}, .license_link = {}, .base_model = "a/b", .start = "x"};
  EXPECT_EQ(to_json(origin), (formats::Json{{"license", "mit"}, {"base_model", "a/b"}, {"start", "x"}}));
  EXPECT_EQ(read_origin(to_json(origin), "m.json"), origin);
  EXPECT_THAT([] { read_origin({{"license", 3}}, "m.json"); }, ThrowsMessage<DataError>(HasSubstr("m.json")));
}

TEST(Origin, WhatAPersonNamesHasItsForm) {
  EXPECT_EQ(license_misfit("llama3.1"), "");
  EXPECT_THAT(license_misfit("The MIT License"), HasSubstr("must be a license's short name"));
  EXPECT_EQ(base_model_misfit("gpt2"), "");
  EXPECT_THAT(base_model_misfit("/models/gpt2"), HasSubstr("ORGANIZATION/NAME, got \"/models/gpt2\""));
}

}  // namespace retort::artifacts
