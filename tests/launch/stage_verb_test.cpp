#include "launch/stage_verb.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "artifacts/export_model.h"
#include "formats/gguf.h"
#include "launch/command_line.h"
#include "recipes/model_address.h"
#include "tests/artifacts/tiny.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using artifacts::save_tiny;
using artifacts::tiny_model;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

// The bytes under the name of another vocabulary.
class OtherTokenizer final : public data::Tokenizer {
 public:
  std::string name() const override { return "other"; }
  int64_t vocabulary() const override { return 256; }
  std::vector<int32_t> encode(std::string_view text) const override { return bytes_->encode(text); }
  std::string decode(std::span<const int32_t> ids) const override { return bytes_->decode(ids); }
  std::string_view token_bytes(int32_t id) const override { return bytes_->token_bytes(id); }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override { return "0123456789abcdef"; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }

 private:
  std::unique_ptr<data::Tokenizer> bytes_ = data::make_byte_tokenizer();
};

// A model's checkpoint, and shards to calibrate and judge on.
class StageVerbs : public ::testing::Test {
 protected:
  StageVerbs() {
    save_tiny(*tiny_model(4), directory_ / "model", 1, std::nullopt);
    testing::write_corpus(directory_ / "text" / "train", testing::random_documents(1, 40, 200, 256));
    testing::write_corpus(directory_ / "text" / "validation", testing::random_documents(2, 6, 200, 256));
  }
  std::string at(const std::string& name) const { return (directory_ / name).string(); }
  // What a command prints, and its error.
  static std::string said(const Words& words) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    std::string error;
    try {
      EXPECT_EQ(parse_command_line(words)(), ExitCode::kDone);
    } catch (const Error& e) {
      error = e.what();
    }
    ::testing::internal::GetCapturedStderr();
    return ::testing::internal::GetCapturedStdout() + error;
  }
  std::string quantize(const std::string& scheme, const Words& more, std::string model = "",
                       std::string calibration = "text") const {
    Words words = {"quantize", model.empty() ? at("model") : model, "--scheme", scheme, "--tokens", "2048"};
    if (!calibration.empty()) words.insert(words.end(), {"--calibration", at(calibration)});
    words.insert(words.end(), more.begin(), more.end());
    return said(words);
  }

  testing::TemporaryDirectory directory_;
  Log quiet_{stderr, "", true};
};

}  // namespace

// The GGUF, the folders and the checkpoint of one command hold the same values.
TEST_F(StageVerbs, EveryFileHoldsTheJudgedValues) {
  const std::string table = quantize(
      "gptq-w4a16-g32", {"--out", at("q.gguf"), "--out", at("folder"), "--json", at("figures.json")});
  EXPECT_THAT(table, HasSubstr("layers.0.ffn.up.weight"));
  EXPECT_THAT(table, HasSubstr("| full precision "));
  EXPECT_THAT(table, HasSubstr("| rtn "));
  EXPECT_THAT(table, HasSubstr("| gptq-w4a16-g32 "));
  for (const char* format : {"gptq", "gptq_v2", "checkpoint"})
    quantize("gptq-w4a16-g32", {"--out", at(format), "--format", format, "--no-baselines"});
  const artifacts::OpenedModel gguf = recipes::open_model(at("q.gguf"), "", 0, quiet_);
  for (const char* name : {"folder", "gptq", "gptq_v2", "checkpoint"}) {
    const artifacts::OpenedModel other = recipes::open_model(at(name), "", 0, quiet_);
    EXPECT_NE(other.tokenizer, nullptr) << name;
    for (const models::Parameter& p : gguf.decoder->parameters().unique())
      EXPECT_TRUE(at::equal(p.master, other.decoder->parameters().at(p.name).master))
          << name << " " << p.name;
  }
  const formats::Json figures = formats::read_json(at("figures.json"));
  const formats::Json &rows = figures.at("models"), &own = rows.back();
  EXPECT_EQ(rows.size(), 3u);
  EXPECT_EQ(own.at("name"), "gptq-w4a16-g32");
  EXPECT_GT(own.at("kl").get<double>(), 0.0);
  EXPECT_LT(own.at("kl").get<double>(), rows[1].at("kl").get<double>());  // rtn
  EXPECT_GT(own.at("file_bytes").get<int64_t>(), 0);
}

TEST_F(StageVerbs, ARunsCheckpointsStay) {
  const auto write = [&](const char* name) {
    return quantize("rtn-q4_0", {"--format", "checkpoint", "--no-baselines", "--out", at(name)});
  };
  EXPECT_THAT(write("model"), HasSubstr("is the model that is read"));
  save_tiny(*tiny_model(5), directory_ / "other", 3, std::nullopt);
  EXPECT_THAT(write("other"), HasSubstr("holds a run's checkpoints, which are not replaced"));
  for (const char* name : {"model", "other"})
    EXPECT_EQ(train::list_checkpoints(directory_ / name / "checkpoints").size(), 1u) << name;
  for (int again = 0; again < 2; ++again) EXPECT_THAT(write("own"), Not(HasSubstr("replaced")));
  EXPECT_EQ(train::list_checkpoints(directory_ / "own" / "checkpoints").size(), 1u);
}

TEST_F(StageVerbs, AnImportanceMatrixIsWrittenAndRead) {
  models::DecoderSpec spec = tiny_model(4)->spec();
  spec.width = 256;
  spec.head_dim = 128;
  spec.ffn_width = 256;
  models::Decoder wide(spec);
  models::initialise(wide.parameters(), "normal", 0.1, 5);
  save_tiny(wide, directory_ / "wide", 1, std::nullopt);
  const auto to = [&](const char* out, const char* calibration, Words more) {
    more.insert(more.end(), {"--no-baselines", "--limit", "128", "--out", at(out)});
    return quantize("imatrix-q4_k", more, at("wide"), calibration);
  };
  EXPECT_THAT(to("a.gguf", "text", {"--importance-out", at("imatrix.gguf")}), HasSubstr("q4_k"));
  EXPECT_THAT(to("b.gguf", "imatrix.gguf", {}), HasSubstr("q4_k"));
  EXPECT_TRUE(read_text(at("a.gguf")) == read_text(at("b.gguf")));
  EXPECT_THAT(quantize("gptq-q4_0", {}, at("wide"), "imatrix.gguf"),
              HasSubstr("is an importance matrix, and method gptq reads text"));
}

TEST_F(StageVerbs, SayWhatCannotBeBeforeAnyWork) {
  EXPECT_THAT(quantize("gptq-q40", {}), HasSubstr("did you mean \"gptq-q4_0\"?"));
  EXPECT_THAT(quantize("rtn-fp8", {"--out", at("x.gguf")}), HasSubstr("a GGUF cannot hold grid fp8"));
  EXPECT_THAT(quantize("rtn-q4_0", {"--out", at("x"), "--format", "gptq"}),
              HasSubstr("a gptq folder cannot hold grid q4_0; it holds "));
  EXPECT_THAT(quantize("rtn-q4_k", {}), HasSubstr("rows must be a multiple of 256"));
  EXPECT_THAT(quantize("rtn-q4_k", {"--fallback", "q8_0"}), HasSubstr("q8_0"));
  testing::write_corpus(directory_ / "other", testing::random_documents(1, 40, 200, 256), 1 << 20,
                        OtherTokenizer());
  EXPECT_THAT(quantize("gptq-q4_0", {}, "", "other"),
              HasSubstr("reads tokenizer bytes, the shards were made with other"));
  EXPECT_THAT(quantize("gptq-q4_0", {}, "", ""), HasSubstr("must name token shards for method gptq to read"));
  const auto bad = tiny_model(4);
  bad->parameters().at("layers.1.attn.o.weight").master[0][0] = std::nan("");
  save_tiny(*bad, directory_ / "bad", 1, std::nullopt);
  EXPECT_THAT(quantize("rtn-q4_0", {}, at("bad")),
              HasSubstr("layers.1.attn.o.weight: its weights must be finite"));
}

TEST_F(StageVerbs, PlacesThatCannotBeWrittenAreSaidFirst) {
  EXPECT_EQ(quantize("gptq-q4_0", {"--out", "/nowhere/x.gguf"}),
            "--out /nowhere/x.gguf: /nowhere cannot be written to: No such file or directory");
  EXPECT_EQ(quantize("gptq-q4_0", {"--out", ""}), "--out must name a folder, got none");
  std::ofstream(at("text.json")) << "{}";
  EXPECT_THAT(quantize("gptq-q4_0", {"--out", at("model") + "/x/y", "--out", at("text") + ".json/z"}),
              HasSubstr("cannot be written to: not a directory"));
  EXPECT_THAT(quantize("gptq-q4_0", {"--json", at("model")}),
              HasSubstr("must be a file, and is a directory"));
  said({"export", at("model"), "--format", "gguf", "--type", "f32", "--out", at("s.gguf")});
  const std::string before = read_text(at("s.gguf"));
  EXPECT_THAT(quantize("gptq-q4_0", {"--importance-out", at("s.gguf")}, at("s.gguf")),
              HasSubstr("is a file that is read"));
  EXPECT_THAT(quantize("gptq-q4_0", {"--out", at("s.gguf")}, at("s.gguf")),
              HasSubstr("is a file that is read"));
  EXPECT_THAT(said({"export", at("s.gguf"), "--format", "gguf", "--type", "f16", "--out", at("s.gguf")}),
              HasSubstr("is a file that is read"));
  EXPECT_EQ(read_text(at("s.gguf")), before);
}

TEST_F(StageVerbs, ATypeThatDoesNotDivideRowsNamesTheTensor) {
  EXPECT_THAT(said({"export", at("model"), "--format", "gguf", "--type", "q6_k", "--out", at("x.gguf")}),
              HasSubstr("embed.weight has rows of 32, and q6_k wants a multiple of 256; q8_0 takes them"));
  EXPECT_FALSE(std::filesystem::exists(at("x.gguf")));
}

TEST_F(StageVerbs, ATextOfAnotherVocabularyIsNotScored) {
  // The validation part of what data prepare makes.
  EXPECT_THAT(said({"eval", at("model"), "--text", at("text")}), HasSubstr("bits_per_byte"));
  testing::write_corpus(directory_ / "other", testing::random_documents(1, 40, 200, 256), 1 << 20,
                        OtherTokenizer());
  EXPECT_THAT(said({"eval", at("model"), "--text", at("other")}),
              HasSubstr("the shards were made with other"));
}

TEST_F(StageVerbs, EvalTakesTasksDividedByCommas) {
  const Words eval = {"eval", at("model"), "--text", at("text")};
  const auto with = [&](const Words& more) {
    Words words = eval;
    words.insert(words.end(), more.begin(), more.end());
    return said(words);
  };
  const std::string both = with({"--tasks", "perplexity,bits_per_byte"});
  EXPECT_THAT(both, AllOf(HasSubstr("| perplexity"), HasSubstr("| bits_per_byte")));
  EXPECT_EQ(with({"--tasks", "perplexity", "--tasks", "bits_per_byte"}), both);
  EXPECT_THAT(with({"--tasks", "perplexity"}), Not(HasSubstr("bits_per_byte")));
  EXPECT_THAT(said({"eval", "--help"}), HasSubstr("several: divided by commas, or --tasks again"));
}

// Its files are those of described tasks.
TEST_F(StageVerbs, EvalRefusesAFolderThatNothingWouldBeWrittenTo) {
  EXPECT_THAT(
      said({"eval", at("model"), "--text", at("text"), "--tasks", "perplexity", "--out", at("results")}),
      HasSubstr("--out: results and samples are those of described tasks, and --tasks names none; --json"));
  EXPECT_FALSE(std::filesystem::exists(at("results")));
}

TEST_F(StageVerbs, HelpNamesNoKeysThatTheVerbLacks) {
  const std::string quantize = said({"quantize", "--help"});
  EXPECT_THAT(quantize, Not(HasSubstr("data.")));
  EXPECT_THAT(quantize, HasSubstr("tokens of --text that models are judged on"));
  EXPECT_THAT(said({"export", "--help"}),
              AllOf(HasSubstr("--format TEXT REQUIRED"), Not(HasSubstr("=gguf"))));
}

TEST_F(StageVerbs, APromptWithoutATokenIsAMistakeOfTheCommand) {
  EXPECT_THROW(parse_command_line({"generate", at("model"), "--prompt", ""})(), ConfigError);
  EXPECT_THROW(parse_command_line({"generate", at("model"), "--prompt", "a", "--prompt", ""})(), ConfigError);
}

TEST_F(StageVerbs, EvalLeavesNoTemporaryFiles) {
  const Path temporary = directory_ / "tmp";
  std::filesystem::create_directory(temporary);
  std::ofstream(at("a.txt")) << "a text of a few words\n";
  std::ofstream(at("empty.txt")) << "";
  const char* given = std::getenv("TMPDIR");
  const std::string before = given != nullptr ? given : "";
  ::setenv("TMPDIR", temporary.c_str(), 1);
  EXPECT_THAT(said({"eval", at("model"), "--text", at("a.txt")}), HasSubstr("bits_per_byte"));
  EXPECT_THAT(said({"eval", at("model"), "--text", at("empty.txt")}), HasSubstr("empty.txt"));
  EXPECT_TRUE(std::filesystem::is_empty(temporary));
  given != nullptr ? ::setenv("TMPDIR", before.c_str(), 1) : ::unsetenv("TMPDIR");
}

TEST_F(StageVerbs, DataPrepareWritesShardsThatInspectVerifies) {
  std::ofstream(at("a.txt")) << "one line\nanother line\na third\n";
  said({"data", "prepare", at("a.txt"), "--out", at("out")});
  EXPECT_THAT(said({"inspect", at("out") + "/train"}), HasSubstr("checksums hold"));
  EXPECT_THAT(said({"data", "prepare", at("missing.txt"), "--out", at("out2")}), HasSubstr("missing.txt"));
  std::ofstream(at("empty.txt")) << "";
  EXPECT_THAT(said({"data", "prepare", at("empty.txt"), "--out", at("out3")}), HasSubstr("empty.txt"));
}

TEST_F(StageVerbs, GenerateSaysEachPromptsContinuation) {
  const auto lines = [&](Words more) {
    Words words = {"generate", at("model"), "--tokens", "12", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    std::istringstream text(said(words));
    std::vector<formats::Json> out;
    for (std::string line; std::getline(text, line);) out.push_back(formats::parse_json(line, "stdout"));
    return out;
  };
  const std::vector<formats::Json> both = lines({"--prompt", "a line", "--prompt", "another, longer line"});
  ASSERT_EQ(both.size(), 2u);
  for (const formats::Json& line : both) {
    EXPECT_EQ(line["ids"].size(), 12u);
    EXPECT_EQ(line["finish"], "length");
    EXPECT_GT(line["tokens_per_second"], 0);
  }
  EXPECT_EQ(both[1]["prompt"], "another, longer line");
  EXPECT_EQ(lines({"--prompt", "another, longer line"})[0]["ids"], both[1]["ids"]);
  EXPECT_EQ(said({"generate", at("model"), "--tokens", "12", "--prompt", "another, longer line"}),
            "another, longer line" + both[1]["text"].get<std::string>() + "\n");
  const auto prompt = both[0]["prompt_ids"].get<std::vector<int>>();
  EXPECT_EQ(
      said({"generate", at("model"), "--tokens", "12", "--ids", fmt::format("{}", fmt::join(prompt, ","))}),
      fmt::format("{} \n", fmt::join(both[0]["ids"].get<std::vector<int>>(), " ")));
  EXPECT_THAT(said({"generate", at("model")}), HasSubstr("must name a text to continue, or token ids"));
}

TEST_F(StageVerbs, ATokenizerIsTrainedButNotOverAModel) {
  std::ofstream(at("a.txt")) << "low lower lowest, slow slower slowest\n";
  said({"tokenizer", "train", at("a.txt"), "--out", at("words"), "--vocabulary", "260"});
  EXPECT_THAT(said({"tokenizer", "encode", "--tokenizer", at("words"), "--text", "low<|endoftext|>"}),
              HasSubstr(" 259\n"));
  std::filesystem::create_directory(directory_ / "hf");
  std::ofstream(at("hf") + "/config.json") << "{}";
  EXPECT_THAT(said({"tokenizer", "train", at("a.txt"), "--out", at("hf"), "--vocabulary", "260"}),
              HasSubstr("is a model's folder, whose tokenizer is not replaced"));
}

}  // namespace retort::launch
