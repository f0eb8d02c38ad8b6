#include "data/tokenizers/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "formats/json.h"

namespace retort::data {
namespace {

using ::testing::HasSubstr;

std::string all_bytes() {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  return text;
}

template <class T>
const T& value(const formats::GgufMetadata& metadata, std::string_view key) {
  for (const auto& [name, v] : metadata)
    if (name == key) return std::get<T>(v);
  throw std::runtime_error("no key " + std::string(key));
}

}  // namespace

TEST(ByteTokenizer, IdsAreBytesAndComeBack) {
  const auto tokenizer = make_tokenizer("bytes");
  EXPECT_EQ(tokenizer->name(), "bytes");
  EXPECT_EQ(tokenizer->vocabulary(), 256);
  EXPECT_FALSE(tokenizer->separator().has_value());
  const std::string text = all_bytes();
  const auto ids = tokenizer->encode(text);
  ASSERT_EQ(ids.size(), 256u);
  for (int32_t byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<size_t>(byte)], byte);
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_TRUE(tokenizer->encode("").empty());
  EXPECT_EQ(tokenizer->decode({}), "");
}

TEST(ByteTokenizer, RefusesIdsBeyondTheVocabulary) {
  const auto tokenizer = make_byte_tokenizer();
  for (const int32_t id : {-1, 256}) {
    const std::vector<int32_t> ids = {65, id};
    EXPECT_THROW(tokenizer->decode(ids), DataError) << id;
  }
}

TEST(ByteTokenizer, FingerprintIsPersistent) {
  // In token shards, checkpoints and teacher caches on disk: it may never change.
  EXPECT_EQ(make_byte_tokenizer()->fingerprint(), "ab0002e91420d9dc");
}

TEST(ByteTokenizer, GgufTokensAreTheByteLevelAlphabetInByteOrder) {
  const auto metadata = make_byte_tokenizer()->gguf_metadata();
  EXPECT_EQ(value<std::string>(metadata, "tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(value<std::string>(metadata, "tokenizer.ggml.pre"), "gpt-2");
  const auto& tokens = value<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 256u);
  EXPECT_EQ(std::set<std::string>(tokens.begin(), tokens.end()).size(), 256u);
  EXPECT_EQ(tokens['A'], "A");
  EXPECT_EQ(tokens['~'], "~");
  EXPECT_EQ(tokens[' '], "\u0120");
  EXPECT_EQ(tokens['\n'], "\u010A");
  EXPECT_EQ(tokens[0], "\u0100");
  EXPECT_EQ(tokens[161], "\u00A1");
  EXPECT_EQ(tokens[173], "\u0143");  // the last of the 68 that are moved
  EXPECT_EQ(tokens[255], "\u00FF");
  EXPECT_EQ(value<std::vector<int32_t>>(metadata, "tokenizer.ggml.token_type"), std::vector<int32_t>(256, 1));
  EXPECT_FALSE(value<bool>(metadata, "tokenizer.ggml.add_bos_token"));
}

TEST(ByteTokenizer, TheOneMergeMakesNoToken) {
  const auto metadata = make_byte_tokenizer()->gguf_metadata();
  const auto& merges = value<std::vector<std::string>>(metadata, "tokenizer.ggml.merges");
  const auto& tokens = value<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  ASSERT_EQ(merges.size(), 1u);
  ASSERT_THAT(merges[0], ::testing::MatchesRegex("[a-z] [a-z]"));
  const std::string joined = {merges[0][0], merges[0][2]};
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), joined), 0);
}

TEST(ByteTokenizer, HfVocabularyIsTheSameAlphabet) {
  const auto tokenizer = make_byte_tokenizer();
  const auto files = tokenizer->hf_files();
  ASSERT_TRUE(files.contains("tokenizer_config.json"));
  const formats::Json json = formats::parse_json(files.at("tokenizer.json"), "tokenizer.json");
  const auto metadata = tokenizer->gguf_metadata();
  const auto& tokens = value<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  ASSERT_EQ(json["model"]["vocab"].size(), 256u);
  for (size_t byte = 0; byte < 256; ++byte) EXPECT_EQ(json["model"]["vocab"][tokens[byte]], byte);
  EXPECT_TRUE(json["model"]["merges"].empty());
  EXPECT_FALSE(json["pre_tokenizer"]["use_regex"].get<bool>());
  EXPECT_FALSE(json["pre_tokenizer"]["add_prefix_space"].get<bool>());
}

TEST(Tokenizers, AnUnknownNameListsTheKnown) {
  try {
    make_tokenizer("byte");
    FAIL() << "accepted an unknown tokenizer";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"bytes\""));
  }
}

}  // namespace retort::data
