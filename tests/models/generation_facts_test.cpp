#include "models/generation_facts.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;
using ::testing::ElementsAre;

class HfGeneration : public ::testing::Test {
 protected:
  void write(const char* name, const std::string& text) {
    write_durably(local_files(), directory_ / name, text);
  }
  Json read() const { return hf_generation(directory_.path()); }
  testing::TemporaryDirectory directory_;
};

// Phi-3-mini-4k-instruct: config.json names the end of a text, generation_config.json those of turns too.
TEST_F(HfGeneration, PrefersGenerationConfig) {
  write("config.json", R"({"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000})");
  write("generation_config.json",
        R"({"eos_token_id": [32000, 32001, 32007], "temperature": 0.6, "do_sample": true})");
  const Json generation = read();
  EXPECT_EQ(generation["bos_token_id"], 1);
  EXPECT_EQ(generation["pad_token_id"], 32000);
  EXPECT_EQ(generation["temperature"], 0.6);
  EXPECT_THAT(end_tokens(generation, 32064), ElementsAre(32000, 32001, 32007));
  EXPECT_THAT(end_tokens(generation, 32007), ElementsAre(32000, 32001));  // no row, no token
}

TEST_F(HfGeneration, TakesConfigsIdsWithoutIt) {
  write("config.json", R"({"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": null})");
  const Json generation = read();
  EXPECT_EQ(generation,
            Json({{"bos_token_id", 2}, {"eos_token_id", {1, 106}}, {"_from_model_config", true}}));
  EXPECT_THAT(end_tokens(generation, 262144), ElementsAre(1, 106));
  write("generation_config.json", R"({"eos_token_id": null, "top_k": 64})");
  EXPECT_THAT(end_tokens(read(), 262144), ElementsAre(1, 106));
  write("config.json", R"({"model_type": "llama"})");
  EXPECT_THAT(end_tokens(read(), 262144), ElementsAre());
  std::filesystem::remove(directory_ / "generation_config.json");
  EXPECT_TRUE(read().empty());
}

TEST_F(HfGeneration, RefusesWhatIsNoId) {
  write("config.json", "{}");
  for (const char* wrong : {R"("</s>")", "1.5", R"([1, "2"])", "[[1]]", "true"}) {
    write("generation_config.json", fmt::format(R"({{"eos_token_id": {}}})", wrong));
    EXPECT_THROW(read(), DataError) << wrong;
  }
  write("generation_config.json", "[1]");
  EXPECT_THROW(read(), DataError);
  for (const char* odd : {"-1", "18446744073709551615", "[5, 5, -1]"}) {
    write("generation_config.json", fmt::format(R"({{"eos_token_id": {}}})", odd));
    EXPECT_LE(end_tokens(read(), 16).size(), 1u) << odd;
  }
}

// Through a GGUF's keys and back: as many ids, under the names that other software gives them.
TEST(GgufGeneration, KeepsUpToThreeEnds) {
  const testing::TemporaryDirectory directory;
  const auto keys_of = [&](formats::GgufMetadata tokenizer, const std::vector<int32_t>& ends) {
    formats::GgufMetadata metadata = {{"general.architecture", std::string("llama")}};
    for (auto& entry : with_end_tokens(std::move(tokenizer), ends)) metadata.push_back(std::move(entry));
    formats::write_gguf(local_files(), directory / "m.gguf", metadata, {});
    const formats::GgufFile file(directory / "m.gguf");
    std::vector<int64_t> keys;  // eos, eot, eom
    for (const char* name : {"eos", "eot", "eom"})
      keys.push_back(file.integer(fmt::format("tokenizer.ggml.{}_token_id", name), -1));
    return std::pair(keys, end_tokens(gguf_generation(file), 200000));
  };
  using Keys = std::vector<int64_t>;
  using Ends = std::vector<int32_t>;
  const formats::GgufMetadata named = {{"tokenizer.ggml.eos_token_id", uint32_t{128001}}};
  EXPECT_EQ(keys_of(named, {128001, 128008, 128009}),
            std::pair(Keys({128001, 128009, 128008}), Ends({128001, 128008, 128009})));
  EXPECT_EQ(keys_of({}, {1, 106}), std::pair(Keys({1, 106, -1}), Ends({1, 106})));
  EXPECT_EQ(keys_of(named, {7, 8, 9, 10}), std::pair(Keys({7, 10, 9}), Ends({7, 9, 10})));
  EXPECT_EQ(keys_of(named, {}), std::pair(Keys({128001, -1, -1}), Ends({128001})));
  EXPECT_EQ(keys_of({}, {}), std::pair(Keys({-1, -1, -1}), Ends()));
}

}  // namespace
}  // namespace retort::models
