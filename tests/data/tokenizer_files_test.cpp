// The files that tokenizers come in: read, written, and refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/sentencepiece.h"
#include "data/tokenizers/splitter.h"
#include "data/tokenizers/tiktoken.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_file.h"
#include "data/tokenizers/tokenizer_json.h"
#include "tests/data/sentencepiece_file.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using formats::Json;
using ::testing::ElementsAre;
using testing::field;
using ::testing::HasSubstr;
using testing::number;
using testing::piece;
using testing::small_model;
using testing::TemporaryDirectory;
using testing::user_defined_model;
using Ids = std::vector<int32_t>;

void write(const Path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// "a" "b" "ab" over bytes, an end mark, llama3's pattern.
Json small_json() {
  Json vocab = Json::object();
  for (size_t byte = 0; byte < 256; ++byte) vocab[byte_alphabet()[byte]] = byte;
  vocab["ab"] = 256;
  return {{"version", "1.0"},
          {"added_tokens", {{{"id", 257}, {"content", "<|end|>"}, {"special", true}}}},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", cl100k_pattern(1)}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({Json::array({"a", "b"})})}}}};
}

void expect_refused(const Path& path, const std::string& why) {
  try {
    open_tokenizer(path);
    ADD_FAILURE() << "accepted, wanted: " << why;
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr(why));
    EXPECT_THAT(error.what(), HasSubstr(path.parent_path().string()));
  }
}

// Whatever a file holds, it is read or refused; nothing else.
void expect_survives(const Path& path, const std::string& content) {
  write(path, content);
  try {
    const auto tokenizer = open_tokenizer(path);
    const std::string text = "ab <|end|>\u00E9 12";
    tokenizer->decode(tokenizer->encode(text));
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ExitCode::kInternal) << error.what();
  }
}
void expect_survives_damage(const Path& path, const std::string& content, uint32_t seed) {
  std::mt19937 random(seed);
  for (int i = 0; i < 200; ++i) {
    std::string damaged = content;
    const size_t at = random() % content.size();
    switch (random() % 4) {
      case 0:
        damaged.resize(at);
        break;
      case 1:
        damaged[at] = static_cast<char>(random() % 256);
        break;
      case 2:
        damaged.erase(at, random() % 16);
        break;
      default:
        damaged.insert(at, content.substr(random() % content.size(), random() % 32));
    }
    expect_survives(path, damaged);
  }
}

}  // namespace

TEST(TokenizerJson, ReadsBothKindsOfMergesAndItsCompanions) {
  const TemporaryDirectory directory;
  Json json = small_json();
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"special_tokens", {{"<|end|>", {{"id", "<|end|>"}, {"ids", {257}}, {"tokens", {"<|end|>"}}}}}}};
  write(directory / "tokenizer.json", json.dump());
  const auto old = open_tokenizer(directory / "tokenizer.json");
  EXPECT_EQ(old->vocabulary(), 258);
  EXPECT_FALSE(old->separator().has_value());  // no file says what <|end|> is for
  EXPECT_THAT(old->prefix(), ElementsAre(257));
  EXPECT_THAT(old->encode("abab<|end|>e\u0301"), ElementsAre(256, 256, 257, 0xC3, 0xA9));

  json["model"]["merges"][0] = "a b";
  write(directory / "tokenizer.json", json.dump());
  write(directory / "tokenizer_config.json",
        R"({"eos_token": {"content": "<|end|>"}, "bos_token": null, "chat_template": [
            {"name": "tools", "template": "no"}, {"name": "default", "template": "{{ messages }}"}]})");
  const auto now = open_tokenizer(directory.path());  // the folder
  EXPECT_EQ(now->fingerprint(), old->fingerprint());
  EXPECT_EQ(now->separator(), 257);
  EXPECT_EQ(now->chat_template(), "{{ messages }}");
  write(directory / "chat_template.jinja", "other");
  EXPECT_EQ(open_tokenizer(directory.path())->chat_template(), "other");
}

TEST(TokenizerJson, WhatIsWrittenIsReadAgain) {
  const TemporaryDirectory directory;
  Json json = small_json();
  json["added_tokens"][0]["lstrip"] = true;
  write(directory / "a" / "tokenizer.json", json.dump());
  write(directory / "a" / "tokenizer_config.json",
        R"({"eos_token": "<|end|>", "chat_template": "\"{x}\"\n"})");
  const auto first = open_tokenizer(directory / "a");
  for (const auto& [name, content] : first->hf_files()) write(directory / "b" / name, content);
  const auto second = open_tokenizer(directory / "b");
  EXPECT_EQ(second->fingerprint(), first->fingerprint());
  EXPECT_EQ(second->separator(), first->separator());
  EXPECT_EQ(second->chat_template(), "\"{x}\"\n");
  EXPECT_EQ(second->hf_files(), first->hf_files());
  EXPECT_EQ(second->encode("ab  <|end|> ab"), first->encode("ab  <|end|> ab"));
}

TEST(TokenizerJson, RefusesByName) {
  const TemporaryDirectory directory;
  const Path path = directory / "tokenizer.json";
  const auto refuses = [&](const std::function<void(Json&)>& change, const std::string& why) {
    Json json = small_json();
    change(json);
    write(path, json.dump());
    expect_refused(path, why);
  };
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"})
    refuses([&](Json& j) { j["model"]["type"] = type; },
            fmt::format("model: type must be BPE, got \"{}\", which is not supported", type));
  refuses([](Json& j) { j.erase("model"); }, "must be an object with key \"model\"");
  refuses([](Json& j) { j["model"] = 3; }, "model: must be an object");
  refuses([](Json& j) { j["model"]["vocab"] = Json::array(); }, "model.vocab must be an object");
  refuses([](Json& j) { j["model"]["vocab"]["ab"] = "x"; }, "the id of \"ab\" must be an integer");
  refuses([](Json& j) { j["model"]["vocab"]["ab"] = 1 << 30; },
          "must be an integer below 516, got \"1073741824\"");
  refuses([](Json& j) { j["model"]["vocab"]["ab"] = -1; }, "the id of \"ab\" must lie in 0 .. 515, got -1");
  refuses([](Json& j) { j["model"]["vocab"]["ab"] = 5; }, "id 5 is both");
  refuses([](Json& j) { j["model"]["vocab"]["ab"] = 18446744073709551615U; }, "must be an integer below");
  refuses([](Json& j) { j["added_tokens"][0]["id"] = 7; }, "id 7 is both");
  refuses([](Json& j) { j["added_tokens"][0].erase("content"); }, "key \"content\" is missing");
  refuses([](Json& j) { j["added_tokens"][0]["special"] = 1; }, "key \"special\" must be true or false");
  refuses([](Json& j) { j["model"]["merges"][0][1] = "c"; },
          "needs the token \"ac\", which the vocabulary lacks");
  refuses([](Json& j) { j["model"]["merges"][0] = "a b c"; }, "two tokens with a space between");
  refuses([](Json& j) { j["model"]["merges"][0] = 3; }, "must be \"a b\" or a list");
  refuses([](Json& j) { j["model"]["merges"][0].erase(1); }, "must be of two tokens");
  refuses([](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout is not supported");
  refuses([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix is not supported");
  refuses([](Json& j) { j["model"]["unk_token"] = "[UNK]"; }, "unk_token \"[UNK]\" is not in the vocabulary");
  refuses([](Json& j) { j["normalizer"] = {{"type", "Precompiled"}}; }, "got \"Precompiled\"");
  refuses([](Json& j) { j["pre_tokenizer"] = {{"type", "Whitespace"}}; }, "got \"Whitespace\"");
  refuses([](Json& j) { j["decoder"] = {{"type", "CTC"}}; }, "got \"CTC\"");
  refuses(
      [](Json& j) {
        j["post_processor"] = {{"type", "TemplateProcessing"},
                               {"single", {{{"SpecialToken", {{"id", "x"}}}}}}};
      },
      "special_tokens must list the ids of \"x\"");
}

TEST(SentencePiece, ReadsAModel) {
  const TemporaryDirectory directory;
  write(directory / "tokenizer.model", small_model());
  const auto tokenizer = open_tokenizer(directory / "tokenizer.model");
  EXPECT_EQ(tokenizer->vocabulary(), 8);
  EXPECT_EQ(tokenizer->separator(), 2);
  EXPECT_THAT(tokenizer->prefix(), ElementsAre(1));
  EXPECT_THAT(tokenizer->encode("ab ab"), ElementsAre(7, 7));
  EXPECT_THAT(tokenizer->encode("ba</s>zz"), ElementsAre(3, 5, 4, 2, 3, 0));
  EXPECT_EQ(tokenizer->decode(Ids{7, 7}), "ab ab");
  EXPECT_EQ(tokenizer->token_bytes(7), " ab");
}

// For texts that do not begin with the begin token: nothing that is written of it says otherwise.
TEST(SentencePiece, LeavesItsPrefixAwayWhereAsked) {
  const TemporaryDirectory directory;
  write(directory / "tokenizer.model", small_model());
  const auto whole = open_tokenizer(directory / "tokenizer.model");
  const auto without = whole->without_prefix();
  EXPECT_THAT(without->prefix(), ElementsAre());
  EXPECT_EQ(without->without_prefix(), nullptr);
  EXPECT_EQ(without->fingerprint(), whole->fingerprint());
  EXPECT_EQ(without->encode("ab ab"), whole->encode("ab ab"));
  EXPECT_EQ(without->separator(), whole->separator());
  std::filesystem::create_directory(directory / "copy");
  for (const auto& [name, content] : without->hf_files()) write(directory / "copy" / name, content);
  EXPECT_THAT(open_tokenizer(directory / "copy")->prefix(), ElementsAre());
  const auto says = [](const Tokenizer& tokenizer) {
    for (const auto& [key, value] : tokenizer.gguf_metadata())
      if (key == "tokenizer.ggml.add_bos_token") return std::get<bool>(value);
    return false;
  };
  EXPECT_TRUE(says(*whole));
  EXPECT_FALSE(says(*without));
}

TEST(LimitedTokenizer, RefusesTextsThatUseWhatHasNoRow) {
  const TemporaryDirectory directory;
  Json json = small_json();
  const int32_t ids = 258;
  json["added_tokens"].push_back({{"id", ids},
                                  {"content", "<image>"},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}});
  write(directory / "tokenizer.json", json.dump());
  const auto whole = open_tokenizer(directory.path());
  ASSERT_EQ(whole->vocabulary(), ids + 1);
  const auto same = limited(open_tokenizer(directory.path()), ids + 1),
             tokenizer = limited(open_tokenizer(directory.path()), ids);
  EXPECT_EQ(same->vocabulary(), ids + 1);
  EXPECT_EQ(tokenizer->vocabulary(), ids);
  EXPECT_EQ(tokenizer->fingerprint(), whole->fingerprint());
  EXPECT_EQ(tokenizer->encode("ab"), whole->encode("ab"));
  const auto refuses = [](const std::function<void()>& body) {
    EXPECT_THAT(body, ::testing::ThrowsMessage<DataError>(::testing::HasSubstr("<image>")));
  };
  refuses([&] { tokenizer->encode("ab<image>"); });
  refuses([&] { tokenizer->encode_after("ab", "<image>"); });
  refuses([&] { tokenizer->decode(Ids{ids}); });
  for (const auto& [key, value] : tokenizer->gguf_metadata()) {
    if (key != "tokenizer.ggml.tokens") continue;
    EXPECT_EQ(std::get<std::vector<std::string>>(value).size(), static_cast<size_t>(ids));
  }
}

// The ids are those of PyPI's sentencepiece 0.2.3.
TEST(SentencePiece, UserDefinedPiecesMayHoldSpaces) {
  const TemporaryDirectory directory;
  struct Row {
    const char* text;
    Ids plain, prefixed;
  };
  const std::vector<Row> rows = {
      {"a  b\n\na", {8, 3, 10, 0, 8}, {5, 3, 10, 0, 8}}, {"ab  ab", {6, 3, 6}, {7, 3, 6}},
      {"a   b", {8, 3, 9, 10}, {5, 3, 9, 10}},           {"a<m>b", {8, 4, 10}, {5, 4, 10}},
      {"a <m> b", {8, 9, 4, 9, 10}, {5, 9, 4, 9, 10}},   {"a    <m>ab", {8, 3, 3, 4, 6}, {5, 3, 3, 4, 6}}};
  for (const bool prefix : {false, true}) {
    write(directory / "tokenizer.model", user_defined_model(prefix));
    const auto model = open_tokenizer(directory / "tokenizer.model");
    for (const auto& [name, content] : model->hf_files()) write(directory / "hf" / name, content);
    formats::write_gguf(local_files(), directory / "x.gguf", model->gguf_metadata(), {});
    const auto json = open_tokenizer(directory / "hf"), gguf = open_tokenizer(directory / "x.gguf");
    EXPECT_EQ(json->fingerprint(), model->fingerprint());
    EXPECT_EQ(gguf->fingerprint(), model->fingerprint());
    EXPECT_EQ(model->token_bytes(3), "  ");
    for (const Row& row : rows) {
      const Ids& expected = prefix ? row.prefixed : row.plain;
      EXPECT_EQ(model->encode(row.text), expected) << row.text;
      EXPECT_EQ(json->encode(row.text), expected) << row.text;
      EXPECT_EQ(gguf->encode(row.text), expected) << row.text;
      if (std::string(row.text).find('\n') == std::string::npos) {
        EXPECT_EQ(model->decode(expected), row.text);
      }
    }
    // llama.cpp looks for it in the raw text.
    for (const auto& [key, value] : model->gguf_metadata())
      if (key == "tokenizer.ggml.tokens") {
        EXPECT_EQ(std::get<std::vector<std::string>>(value)[3], "  ");
      }
  }
}

TEST(SentencePiece, RefusesByName) {
  const TemporaryDirectory directory;
  const Path path = directory / "tokenizer.model";
  const auto refuses = [&](const std::string& content, const std::string& why) {
    write(path, content);
    expect_refused(path, why);
  };
  refuses(small_model(1), "must be of type BPE, got Unigram, which is not supported");
  refuses(small_model(3), "got word");
  refuses(small_model(9), "got type 9");
  refuses(piece("a", 0, 1), "must have pieces and a trainer_spec");
  refuses(small_model() + piece("c", 0, 7), "a piece's type must lie in 1 .. 6, got 7");
  refuses(small_model() + piece("c", NAN, 1), "the score of piece 8 must be finite");
  refuses(small_model() + piece("a", 0, 1), "ids 4 and 8 are the same token");
  refuses(small_model() + piece("\xFF", 0, 1), "is no UTF-8");
  refuses(small_model() + field(3, number(4, 1)), "remove_extra_whitespaces is not supported");
  refuses(small_model() + field(3, number(4, 0) + field(2, "map")), "a normalization of characters");
  refuses(small_model() + field(2, number(3, 2) + number(42, 99)),
          "text's end must be an id below 8, got 99");
  refuses(small_model().substr(0, 9), "not a whole SentencePiece model");
  refuses("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", "are needed");
}

TEST(Tiktoken, RefusesWhatItDoesNotKnow) {
  const TemporaryDirectory directory;
  const Path path = directory / "x.tiktoken";
  const auto refuses = [&](const std::string& content, const std::string& why) {
    write(path, content);
    expect_refused(path, why);
  };
  EXPECT_TRUE(looks_like_tiktoken("IQ== 0\n"));
  EXPECT_FALSE(looks_like_tiktoken("#version: 0.2\n"));
  refuses("IQ== 0\nIg== 1\n",
          "holds 2 tokens; how they cut text is known for r50k_base (50256), cl100k_base (100256)");
  refuses("IQ== 0\nIg== 0\n", "rank 0 is there twice");
  refuses("IQ== 0\nIg== 99\n", "x.tiktoken:2: a rank must lie in 0 .. 5, got \"99\"");
  refuses("IQ== 0\nIg==\n", "must be a token and its rank");
  refuses("IQ== 0\nI*== 1\n", "must be in base64, got \"I*\"");
  refuses("IQ== 0\nIg= 1\n", "must be in base64");
}

TEST(Tiktoken, GivesTheIdsOfTheSameVocabulary) {
  RETORT_NEEDS_TEST_DATA();
  const TemporaryDirectory directory;
  const auto gpt2 = open_tokenizer(testing::test_data() / "tokenizers" / "gpt2");
  static constexpr const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string file;
  for (int32_t id = 0; id < 50256; ++id) {
    const std::string_view bytes = gpt2->token_bytes(id);
    for (size_t i = 0; i < bytes.size(); i += 3) {
      const auto byte = [&](size_t k) {
        return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U;
      };
      const uint32_t bits = byte(0) << 16 | byte(1) << 8 | byte(2);
      for (size_t k = 0; k < 4; ++k)
        file += i + k > bytes.size() || (k > 0 && i + k - 1 >= bytes.size())
                    ? '='
                    : kAlphabet[bits >> (18 - 6 * k) & 63];
    }
    file += fmt::format(" {}\n", id);
  }
  write(directory / "r50k_base.tiktoken", file);
  const auto tiktoken = open_tokenizer(directory / "r50k_base.tiktoken");
  EXPECT_EQ(tiktoken->vocabulary(), 50257);
  EXPECT_EQ(tiktoken->separator(), 50256);
  const std::string text = read_text(testing::test_data() / "text" / "tinyshakespeare.txt").substr(0, 200000);
  EXPECT_TRUE(tiktoken->encode(text) == gpt2->encode(text));
  EXPECT_THAT(tiktoken->encode("<|endoftext|>"), ElementsAre(50256));
}

TEST(GgufVocabulary, CarriesEveryThingBothWays) {
  const TemporaryDirectory directory;
  write(directory / "bytes" / "tokenizer.json", small_json().dump());
  write(directory / "bytes" / "tokenizer_config.json",
        R"({"eos_token": "<|end|>", "chat_template": "hello"})");
  write(directory / "pieces" / "tokenizer.model", small_model());
  for (const char* name : {"bytes", "pieces"}) {
    const auto before = open_tokenizer(directory / name);
    const Path path = directory / (std::string(name) + ".gguf");
    formats::write_gguf(local_files(), path, padded(before->gguf_metadata(), 300), {});
    const auto after = open_tokenizer(path);
    EXPECT_EQ(after->fingerprint(), before->fingerprint()) << name;
    EXPECT_EQ(after->separator(), before->separator()) << name;
    EXPECT_EQ(after->prefix(), before->prefix()) << name;
    EXPECT_EQ(after->chat_template(), before->chat_template()) << name;
    EXPECT_EQ(after->vocabulary(), before->vocabulary()) << name;
    EXPECT_EQ(after->encode("ab ab<|end|>"), before->encode("ab ab<|end|>")) << name;
  }
}

TEST(GgufVocabulary, NamesThePreTokenizer) {
  const auto pre = [](const std::function<void(BpeSpec&)>& change) {
    const TemporaryDirectory directory;
    write(directory / "tokenizer.json", small_json().dump());
    BpeSpec spec = read_tokenizer_json(directory / "tokenizer.json");
    change(spec);
    for (const auto& [key, value] : to_gguf(spec))
      if (key == "tokenizer.ggml.pre") return std::get<std::string>(value);
    return std::string();
  };
  EXPECT_EQ(pre([](BpeSpec&) {}), "qwen2");
  EXPECT_EQ(pre([](BpeSpec& s) {
              s.normalizer = nullptr;
              s.pre_tokenizer["pretokenizers"][0]["pattern"]["Regex"] = cl100k_pattern(3);
              s.ignore_merges = true;
            }),
            "llama-bpe");
  EXPECT_EQ(pre([](BpeSpec& s) {
              s.normalizer = nullptr;
              s.pre_tokenizer = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
            }),
            "gpt-2");
  try {
    pre([](BpeSpec& s) { s.pre_tokenizer["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; });
    FAIL() << "named a pattern that llama.cpp does not know";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("this one is none of gpt-2, llama-bpe"));
  }
}

TEST(GgufVocabulary, RefusesByName) {
  const TemporaryDirectory directory;
  write(directory / "tokenizer.json", small_json().dump());
  const auto refuses = [&](const std::string& key, const std::optional<formats::GgufValue>& value,
                           const std::string& why) {
    formats::GgufMetadata metadata = to_gguf(read_tokenizer_json(directory / "tokenizer.json"));
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    if (value) metadata.emplace_back(key, *value);
    formats::write_gguf(local_files(), directory / "x.gguf", metadata, {});
    expect_refused(directory / "x.gguf", why);
  };
  refuses("tokenizer.ggml.model", std::string("bert"),
          "must be gpt2 or llama, got \"bert\", which is not supported");
  refuses("tokenizer.ggml.model", std::string("t5"), "got \"t5\"");
  refuses("tokenizer.ggml.pre", std::string("qwen"), "got \"qwen\"; did you mean \"qwen2\"?");
  refuses("tokenizer.ggml.tokens", std::nullopt, "key tokenizer.ggml.tokens must be there");
  refuses("tokenizer.ggml.merges", std::nullopt, "key tokenizer.ggml.merges must be there");
  refuses("tokenizer.ggml.merges", std::vector<std::string>{"ab"}, "two tokens with a space between");
  refuses("tokenizer.ggml.token_type", std::vector<int32_t>{1}, "must have 258 elements, got 1");
  refuses("tokenizer.ggml.eos_token_id", uint32_t{9999}, "must be an id below 258, got 9999");
}

TEST(TokenizerFiles, SurviveDamage) {
  const TemporaryDirectory directory;
  Json json = small_json();
  json["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}};
  json["added_tokens"][0]["id"] = 3;
  expect_survives_damage(directory / "a" / "tokenizer.json", json.dump(), 5);
  expect_survives_damage(directory / "tokenizer.model", small_model(), 6);
  expect_survives_damage(directory / "x.tiktoken", "IQ== 0\nIg== 1\nISE= 2\n", 7);
  formats::write_gguf(local_files(), directory / "x.gguf", make_byte_tokenizer()->gguf_metadata(), {});
  expect_survives_damage(directory / "x.gguf", read_text(directory / "x.gguf"), 8);
}

TEST(TokenizerFiles, AreFoundByTheirNames) {
  const TemporaryDirectory directory;
  const auto found = [&](const char* path) {
    return tokenizer_file(directory / path).lexically_relative(directory.path()).string();
  };
  for (const char* name : {"", "none", "notes.txt", "config.json"}) EXPECT_EQ(found(name), "") << name;
  write(directory / "notes.txt", "text");
  write(directory / "encoder.json", "{}");
  for (const char* name : {"", "notes.txt", "encoder.json"}) EXPECT_EQ(found(name), "") << name;
  write(directory / "vocab.bpe", "");
  for (const char* name : {"encoder.json", "vocab.bpe"}) EXPECT_EQ(found(name), name);
  EXPECT_EQ(found(""), "encoder.json");
  for (const char* name : {"vocab.json", "merges.txt"}) write(directory / name, "");
  EXPECT_EQ(found(""), "vocab.json");
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    write(directory / name, "");
    EXPECT_EQ(found(""), name) << "it comes before those above";
    EXPECT_EQ(found(name), name);
  }
  write(directory / "qwen.tiktoken", "");
  EXPECT_EQ(found("qwen.tiktoken"), "qwen.tiktoken");
}

TEST(TokenizerFiles, AddressesLeadSomewhere) {
  const TemporaryDirectory directory;
  EXPECT_EQ(make_tokenizer("bytes")->name(), "bytes");
  EXPECT_THROW(make_tokenizer((directory / "none.json").string()), IoError);
  EXPECT_THROW(make_tokenizer("byte"), ConfigError);
  expect_refused(directory.path(), "holds no tokenizer");
  write(directory / "vocab.json", "{\"a\": 0}");
  expect_refused(directory / "vocab.json", "wants merges.txt beside it");
  write(directory / "merges.txt", "#version: 0.2\n");
  EXPECT_EQ(make_tokenizer(directory.path().string())->vocabulary(), 1);
}

}  // namespace retort::data
