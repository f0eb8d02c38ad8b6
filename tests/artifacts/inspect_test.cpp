#include "artifacts/inspect.h"

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/error.h"
#include "data/token_shards.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "tests/artifacts/tiny.h"
#include "tests/data/sentencepiece_file.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string said_of(const Path& path) {
  std::string out;
  Log quiet(stderr, "", true);
  inspect(
      path, [&](std::string_view line) { (out += line) += "\n"; }, quiet);
  return out;
}

}  // namespace

TEST(Inspect, ModelsOfEveryKind) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(1), directory / "run" / "stage", 3, std::nullopt);
  Log quiet(stderr, "", true);
  const OpenedModel model = open_model(directory / "run", quiet);
  export_model(model, {.format = "gguf"}, directory / "x.gguf", local_files());
  export_model(model, {.format = "hf"}, directory / "hf", local_files());
  const auto checkpoint = AllOf(HasSubstr("checkpoint of step 3; checksums hold\nllama decoder: 2 layers"),
                                HasSubstr("layers.0.ffn.up.weight  [64, 32]  used 2 times\n"));
  EXPECT_THAT(said_of(directory / "run" / "stage"), checkpoint);
  EXPECT_THAT(said_of(directory / "run" / "stage" / "checkpoints"), checkpoint);
  EXPECT_THAT(said_of(directory / "run"), "holds: stage\n");
  EXPECT_THAT(said_of(directory / "x.gguf"),
              AllOf(HasSubstr("llama decoder: 2 layers"), HasSubstr("general.architecture: \"llama\"\n"),
                    HasSubstr("token_embd.weight  f32  [256, 32]\n")));
  EXPECT_THAT(said_of(directory / "hf"),
              AllOf(HasSubstr("llama decoder: 2 layers"), HasSubstr("format: pt\n"),
                    HasSubstr("model.embed_tokens.weight  F32  [256, 32]\n")));
}

TEST(Inspect, AFileThatOnlyOthersRunIsNoError) {
  testing::TemporaryDirectory directory;
  formats::write_gguf(local_files(), directory / "m.gguf", {{"general.architecture", std::string("mamba")}},
                      {{"a.weight", formats::pack(formats::GgmlType::F32, at::ones({2, 32}))}});
  EXPECT_THAT(said_of(directory / "m.gguf"),
              AllOf(HasSubstr("not a model that retort runs: "),
                    HasSubstr("architecture \"mamba\" is not known"), HasSubstr("a.weight  f32  [2, 32]\n")));
}

TEST(Inspect, DataAndWhatAStageLeft) {
  testing::TemporaryDirectory directory;
  const auto bytes = data::make_byte_tokenizer();
  data::TokenShardWriter writer(local_files(), directory / "text" / "train", *bytes, "here");
  writer.add(std::vector<int32_t>(10, 65), 10);
  writer.finish();
  std::ofstream(directory / "text" / "result.json") << "{\"tokens\": 10}\n";
  EXPECT_THAT(
      said_of(directory / "text"),
      AllOf(HasSubstr("{\"tokens\": 10}\ntrain: token shards: 10 tokens of 10 bytes in 1 document(s)"),
            HasSubstr("source: here\nchecksums hold\n")));
  EXPECT_THAT(said_of(directory / "text" / "train" / "shard-00000.h5"), HasSubstr("format: retort-tokens\n"));
  EXPECT_THAT(said_of(directory / "text" / "result.json"), "{\n  \"tokens\": 10\n}\n");
}

TEST(Inspect, Tokenizers) {
  testing::TemporaryDirectory directory;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((directory / name).parent_path());
    std::ofstream(directory / name, std::ios::binary) << text;
  };
  const auto bytes = data::make_byte_tokenizer();
  formats::Json file = formats::Json::parse(bytes->hf_files().at("tokenizer.json"));
  write("bytes/tokenizer.json", file.dump());
  EXPECT_THAT(said_of(directory / "bytes"),
              AllOf(HasSubstr("tokenizer of byte pairs: 256 tokens, fingerprint "),
                    HasSubstr("\n0 special tokens\nno GGUF holds it: ")));
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  write("gpt2/tokenizer.json", file.dump());
  EXPECT_THAT(said_of(directory / "gpt2"), AllOf(HasSubstr("tokenizer.ggml.model: \"gpt2\"\n"),
                                                 HasSubstr("tokenizer.ggml.pre: \"gpt-2\"\n")));
  file["added_tokens"] = formats::Json::array();
  for (int id = 256; id < 280; ++id)
    file["added_tokens"].push_back(
        {{"id", id}, {"content", fmt::format("<{}>", id)}, {"special", id != 257}});
  write("stage/tokenizer.json", file.dump());
  write("stage/result.json", "{\"vocabulary\": 280}");
  const std::string special = "23 special tokens: 256 \"<256>\", 258 \"<258>\", ";
  EXPECT_THAT(said_of(directory / "stage"),
              AllOf(HasSubstr("{\"vocabulary\": 280}\ntokenizer of byte pairs: 280 tokens"),
                    HasSubstr(special), HasSubstr("276 \"<276>\", ...\n")));
  EXPECT_THAT(said_of(directory / "stage" / "tokenizer.json"), HasSubstr(special));
}

// It is told by name, so that the error is of the file and of the format that was meant.
TEST(Inspect, ATokenizerThatCannotBeReadIsBadData) {
  struct Row {
    const char *name, *text, *rule;
  };
  for (const Row& row :
       {Row{"tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})",
            ": model: type must be BPE, got \"WordPiece\", which is not supported"},
        Row{"tokenizer.json", R"({"version": "1.0"})", ": must be an object with key \"model\""},
        Row{"tokenizer.json", "[1, 2]", ": must be an object with key \"model\""},
        Row{"tokenizer.json", "hello there", ":1:1: syntax error"},
        Row{"tokenizer.json", R"({"model": {"type": "BPE", "vocab")", ":1:33: syntax error"},
        Row{"tokenizer.json", "", ": is empty, and no tokenizer"},
        Row{"tokenizer.model", "", ": is empty, and no tokenizer"},
        Row{"tokenizer.model", "hello there", ": not a SentencePiece model"},
        Row{"qwen.tiktoken", "hello\n", ":1: a line must be a token and its rank, got \"hello\""}}) {
    testing::TemporaryDirectory directory;
    const Path file = directory / row.name;
    std::ofstream(file, std::ios::binary) << row.text;
    try {
      said_of(file);
      ADD_FAILURE() << row.name << ": " << row.text;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr(file.string() + row.rule));
    }
  }
}

TEST(Inspect, ASentencePieceModel) {
  testing::TemporaryDirectory directory;
  std::ofstream(directory / "tokenizer.model", std::ios::binary) << testing::small_model();
  for (const Path& path : {directory.path(), directory / "tokenizer.model"})
    EXPECT_THAT(said_of(path), AllOf(HasSubstr("tokenizer of byte pairs: "), HasSubstr("3 special tokens: "),
                                     HasSubstr("tokenizer.ggml.model: \"llama\"\n")));
}

TEST(Inspect, SaysWhatItCannot) {
  testing::TemporaryDirectory directory;
  EXPECT_THROW(said_of(directory / "nothing"), IoError);
  EXPECT_THROW(said_of(directory.path()), DataError);
  std::ofstream(directory / "a.txt") << "text";
  EXPECT_THROW(said_of(directory / "a.txt"), DataError);
  std::ofstream(directory / "pytorch_model.bin") << "PK\3\4";
  EXPECT_THROW(said_of(directory / "pytorch_model.bin"), DataError);
}

}  // namespace retort::artifacts
