// The files beside a vocabulary's file, over every format that is read.
#include "data/tokenizers/companions.h"

#include <gmock/gmock.h>

#include <fstream>
#include <functional>
#include <random>

#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/tokenizer.h"
#include "tests/data/sentencepiece_file.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using formats::Json;
using retort::testing::TemporaryDirectory;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void write(const Path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

Json byte_vocabulary() {
  Json vocab = Json::object();
  for (size_t byte = 0; byte < 256; ++byte) vocab[byte_alphabet()[byte]] = byte;
  vocab["ab"] = 256;
  return vocab;
}

struct Format {
  std::string name;
  int32_t next;  // the first id that it has no token for
  std::function<void(const Path&)> make;
};

std::vector<Format> formats() {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const Json json = {
      {"pre_tokenizer", byte_level},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", byte_vocabulary()}, {"merges", Json::array({"a b"})}}}};
  const auto pair = [](const char* tokenizer_class) {
    return [tokenizer_class](const Path& folder) {
      write(folder / "vocab.json", byte_vocabulary().dump());
      write(folder / "merges.txt", "#version: 0.2\na b\n");
      write(folder / "config.json", Json{{"model_type", tokenizer_class}}.dump());
    };
  };
  return {
      {"tokenizer.json", 257, [json](const Path& folder) { write(folder / "tokenizer.json", json.dump()); }},
      {"SentencePiece", 8,
       [](const Path& folder) { write(folder / "tokenizer.model", testing::small_model()); }},
      {"a pair of GPT-2", 257, pair("gpt2")},
      {"a pair of Qwen2", 257, pair("qwen2")}};
}

Json with_marks(int32_t first) {
  const auto token = [](const char* text) {
    return Json{{"content", text},     {"lstrip", false},      {"rstrip", false},
                {"normalized", false}, {"single_word", false}, {"special", true}};
  };
  return {
      {"added_tokens_decoder",
       {{std::to_string(first), token("<|im_start|>")}, {std::to_string(first + 1), token("<|im_end|>")}}},
      {"eos_token", "<|im_end|>"},
      {"sep_token", "<|im_start|>"},
      {"pad_token", "[PAD]"},
      {"additional_special_tokens", {"<|im_start|>"}},
      {"chat_template",
       {{{"name", "default"}, {"template", "D"}}, {{"name", "tool_use"}, {"template", "T"}}}}};
}

TEST(Companions, AreReadBesideEveryFormat) {
  for (const Format& format : formats()) {
    SCOPED_TRACE(format.name);
    const TemporaryDirectory directory;
    format.make(directory / "a");
    const auto plain = open_tokenizer(directory / "a");
    EXPECT_EQ(plain->vocabulary(), format.next);
    write(directory / "a" / "tokenizer_config.json", with_marks(format.next).dump());
    const auto read = open_tokenizer(directory / "a");
    EXPECT_EQ(read->vocabulary(), format.next + 3);  // with a pad token that the files have no id for
    EXPECT_THAT(read->encode("[PAD]"), ElementsAre(format.next + 2));
    EXPECT_EQ(read->separator(), format.next + 1);
    const std::vector<int32_t> ids = read->encode("<|im_start|>ab");
    ASSERT_EQ(ids.front(), format.next);
    EXPECT_TRUE(read->is_special(format.next));
    EXPECT_EQ(read->chat_template(), "D");
  }
}

// And they survive both ways out.
TEST(Companions, LeaveInAFolderAndAGguf) {
  for (const Format& format : formats()) {
    SCOPED_TRACE(format.name);
    const TemporaryDirectory directory;
    format.make(directory / "a");
    write(directory / "a" / "tokenizer_config.json", with_marks(format.next).dump());
    const auto before = open_tokenizer(directory / "a");
    for (const auto& [name, content] : before->hf_files()) write(directory / "b" / name, content);
    const auto folder = open_tokenizer(directory / "b");
    EXPECT_EQ(folder->fingerprint(), before->fingerprint());
    EXPECT_EQ(folder->hf_files(), before->hf_files());
    const Json config = formats::read_json(directory / "b" / "tokenizer_config.json");
    EXPECT_EQ(config["chat_template"], with_marks(0)["chat_template"]);
    EXPECT_EQ(config["sep_token"], "<|im_start|>");
    EXPECT_EQ(config["additional_special_tokens"], Json::array({"<|im_start|>"}));

    const Path path = directory / "c.gguf";
    formats::write_gguf(local_files(), path, padded(before->gguf_metadata(), 300), {});
    const formats::GgufFile gguf(path);
    EXPECT_EQ(gguf.text("tokenizer.chat_template"), "D");
    EXPECT_EQ(gguf.text("tokenizer.chat_template.tool_use"), "T");
    EXPECT_EQ(gguf.integer("tokenizer.ggml.seperator_token_id"), format.next);
    const auto back = open_tokenizer(path);
    EXPECT_EQ(back->fingerprint(), before->fingerprint());
    EXPECT_EQ(Json::parse(back->hf_files().at("tokenizer_config.json"))["chat_template"],
              config["chat_template"]);
  }
}

// In the order of transformers 5.23, whatever the file's; a text that has an id keeps it.
TEST(Companions, NamedTokensThatTheVocabularyLacksAreAppended) {
  for (const Format& format : formats()) {
    SCOPED_TRACE(format.name);
    const TemporaryDirectory directory;
    format.make(directory.path());
    write(directory / "added_tokens.json", fmt::format(R"({{"<Z>": {}}})", format.next));
    write(directory / "special_tokens_map.json", R"({"sep_token": "<sep>"})");
    write(directory / "tokenizer_config.json", R"({"image_token": "<i>", "mask_token": {"content": "<m>"},
        "additional_special_tokens": ["<A>", "<m>"], "extra_special_tokens": {"sound_token": "<S>"},
        "pad_token": "<p>", "unk_token": null, "eos_token": "<e>", "cls_token": "<Z>", "bos_token": "<b>"})");
    const auto read = open_tokenizer(directory.path());
    const std::vector<std::string> order = {"<Z>", "<b>", "<e>", "<sep>", "<p>", "<m>", "<i>", "<A>", "<S>"};
    EXPECT_EQ(read->vocabulary(), format.next + std::ssize(order));
    for (size_t i = 0; i < order.size(); ++i) {
      const auto id = static_cast<int32_t>(format.next + static_cast<int32_t>(i));
      EXPECT_EQ(read->token_bytes(id), order[i]);
      EXPECT_TRUE(read->is_special(id)) << order[i];
    }
    EXPECT_EQ(read->separator(), format.next + 2);
    const std::vector<int32_t> ids = read->encode("a<e><A>");
    ASSERT_GE(ids.size(), 3u);
    EXPECT_EQ(ids.end()[-2], format.next + 2);
    EXPECT_EQ(ids.end()[-1], format.next + 7);
    for (const auto& [name, content] : read->hf_files()) write(directory / "b" / name, content);
    EXPECT_EQ(open_tokenizer(directory / "b")->fingerprint(), read->fingerprint());
  }
}

// As transformers 5.17 has it.
TEST(Companions, OlderFilesCountWithoutAddedTokensDecoder) {
  for (const Format& format : formats()) {
    SCOPED_TRACE(format.name);
    const TemporaryDirectory directory;
    format.make(directory.path());
    write(directory / "added_tokens.json",
          fmt::format(R"({{"<x>": {}, "<y>": {}}})", format.next, format.next + 1));
    write(directory / "special_tokens_map.json", R"({"eos_token": "<x>"})");
    write(directory / "tokenizer_config.json", R"({"eos_token": "<y>"})");
    const auto map = open_tokenizer(directory.path());
    EXPECT_EQ(map->vocabulary(), format.next + 2);
    EXPECT_EQ(map->separator(), format.next);  // the map says it
    EXPECT_TRUE(map->is_special(format.next));
    write(directory / "tokenizer_config.json",
          fmt::format(R"({{"eos_token": "<y>", "added_tokens_decoder": {{"{}": {{"content": "<y>"}}}}}})",
                      format.next));
    const auto config = open_tokenizer(directory.path());
    EXPECT_EQ(config->vocabulary(), format.next + 1);
    EXPECT_EQ(config->separator(), format.next);
  }
}

// What differs is refused with both places.
TEST(Companions, NameBothPlacesThatDiffer) {
  const auto token = [](const std::string& id, const char* text) {
    return Json{{"added_tokens_decoder", {{id, {{"content", text}}}}}};
  };
  for (const Format& format : formats()) {
    SCOPED_TRACE(format.name);
    const std::string next = std::to_string(format.next), far = std::to_string(format.next + 7);
    const std::pair<Json, const char*> cases[] = {{token("4", "<x>"), "id 4 is \"<x>\""},
                                                  {token(next, "ab"), "same token"},
                                                  {token(far, "<x>"), "ends with"},
                                                  {token("-1", "<x>"), "a token's id"}};
    for (const auto& [config, why] : cases) {
      const TemporaryDirectory directory;
      format.make(directory.path());
      write(directory / "tokenizer_config.json", config.dump());
      try {
        open_tokenizer(directory.path());
        ADD_FAILURE() << "accepted: " << config.dump();
      } catch (const DataError& error) {
        EXPECT_THAT(error.what(), HasSubstr(why));
      }
    }
  }
}

// A named token of the vocabulary is cut out whole, and an added token's flags are the config's.
TEST(Companions, NamedTokensAreCutOut) {
  const Format format = formats().front();
  const TemporaryDirectory directory;
  format.make(directory.path());
  EXPECT_THAT(open_tokenizer(directory.path())->encode("xabab"), ElementsAre('x', 256, 256));
  write(directory / "tokenizer_config.json", R"({"bos_token": {"content": "ab", "rstrip": true}})");
  const auto named = open_tokenizer(directory.path());
  EXPECT_THAT(named->encode("ab  x"), ElementsAre(256, 'x'));
  EXPECT_TRUE(named->is_special(256));
}

TEST(Companions, AddBosTokenCountsWhereNoFileSaysTheFrame) {
  for (const Format& format : formats()) {
    const TemporaryDirectory directory;
    format.make(directory.path());
    write(directory / "tokenizer_config.json",
          fmt::format(R"({{"added_tokens_decoder": {{"{}": {{"content": "<x>"}}}}, "bos_token": "<x>",
                          "add_bos_token": true}})",
                      format.next));
    const auto prefix = open_tokenizer(directory.path())->prefix();
    if (format.name == "tokenizer.json")
      EXPECT_TRUE(prefix.empty());  // its post_processor says it
    else
      EXPECT_THAT(prefix, ElementsAre(format.next)) << format.name;
  }
}

TEST(Companions, AClassOfAPairIsReadByItsRulesOrRefused) {
  const TemporaryDirectory directory;
  write(directory / "vocab.json", byte_vocabulary().dump());
  write(directory / "merges.txt", "a b\n");
  const auto ids_of = [&](const char* config) {
    write(directory / "tokenizer_config.json", config);
    return open_tokenizer(directory.path())->encode("a 12e\u0301");
  };
  const auto gpt2 = ids_of(R"({"tokenizer_class": "GPT2TokenizerFast"})");
  EXPECT_EQ(ids_of("{}"), gpt2);
  EXPECT_EQ(gpt2.size(), 7u);                                                // bytes as they are
  EXPECT_EQ(ids_of(R"({"tokenizer_class": "Qwen2Tokenizer"})").size(), 6u);  // NFC
  EXPECT_EQ(ids_of(R"({"add_prefix_space": true})").front(), 0x20);
  for (const char* config :
       {R"({"tokenizer_class": "RobertaTokenizer"})", R"({"tokenizer_class": "PreTrainedTokenizerFast"})"}) {
    try {
      ids_of(config);
      ADD_FAILURE() << config;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr("tokenizer_class"));
      EXPECT_THAT(error.what(), HasSubstr(directory.path().string()));
    }
  }
}

// Whatever they hold, it is read or refused.
TEST(Companions, SurviveDamage) {
  const Format format = formats().back();
  const TemporaryDirectory directory;
  format.make(directory.path());
  const std::pair<const char*, std::string> files[] = {
      {"tokenizer_config.json", with_marks(format.next).dump()},
      {"special_tokens_map.json", R"({"eos_token": {"content": "ab", "lstrip": true}, "sep_token": "a"})"},
      {"added_tokens.json", fmt::format(R"({{"<x>": {}, "<y>": {}}})", format.next, format.next + 1)}};
  std::mt19937 random(5);
  for (const auto& [name, content] : files) {
    for (int i = 0; i < 300; ++i) {
      std::string damaged = content;
      const size_t at = random() % content.size();
      if (i % 3 == 0) damaged[at] = static_cast<char>(random() % 256);
      if (i % 3 == 1) damaged.erase(at, random() % 16);
      if (i % 3 == 2) damaged.insert(at, content.substr(random() % content.size(), random() % 32));
      write(directory / name, damaged);
      try {
        const auto tokenizer = open_tokenizer(directory.path());
        tokenizer->hf_files();
        tokenizer->gguf_metadata();
        tokenizer->decode(tokenizer->encode("ab <x> <|im_start|>"));
      } catch (const Error& error) {
        EXPECT_NE(error.code(), ExitCode::kInternal) << error.what();
      }
    }
    std::filesystem::remove(directory / name);
  }
}

TEST(Companions, GiveTheIdsOfAutoTokenizer) {
  RETORT_NEEDS_TEST_DATA();
  const Path folder = retort::testing::test_data() / "faults" / "tok";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  EXPECT_THAT(open_tokenizer(folder / "qwenpair")->encode("<|im_start|>hi  there 12"),
              ElementsAre(601, 378, 220, 508, 220, 16, 17));
  EXPECT_EQ(open_tokenizer(folder / "qwenpair")->separator(), 602);
  EXPECT_THAT(open_tokenizer(folder / "addeddecoder")->encode("a[PAD]b"), ElementsAre(65, 600, 66));
  EXPECT_EQ(open_tokenizer(folder / "padmissing")->vocabulary(), 601);
  EXPECT_THAT(open_tokenizer(folder / "padmissing")->encode("a[PAD]b"), ElementsAre(65, 600, 66));
}

}  // namespace
}  // namespace retort::data
