#include "launch/quantization.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "formats/gguf.h"
#include "artifacts/export_model.h"
#include "launch/score.h"
#include "launch/verbs.h"
#include "tests/artifacts/tiny.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using artifacts::save_tiny;
using artifacts::tiny_model;

using ::testing::HasSubstr;

// The bytes, said to be another vocabulary.
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
class Quantization : public ::testing::Test {
 protected:
  Quantization() {
    save_tiny(*tiny_model(4), directory_ / "model", 1, std::nullopt);
    testing::write_corpus(directory_ / "text" / "train", testing::random_documents(1, 40, 200, 256));
    testing::write_corpus(directory_ / "text" / "validation", testing::random_documents(2, 6, 200, 256));
  }
  std::string at(const std::string& name) const { return (directory_ / name).string(); }
  QuantizeArguments arguments(const std::string& scheme) const {
    QuantizeArguments out;
    out.model = at("model");
    out.scheme = scheme;
    out.calibration = at("text");
    out.tokens = 2048;
    return out;
  }
  static std::string output_of(const QuantizeArguments& arguments) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    std::string error;
    try {
      EXPECT_EQ(quantize_verb(arguments), ExitCode::kDone);
    } catch (const Error& e) {
      error = e.what();
    }
    ::testing::internal::GetCapturedStderr();
    return ::testing::internal::GetCapturedStdout() + error;
  }

  testing::TemporaryDirectory directory_;
};

}  // namespace

// The GGUF, the folders and the checkpoint of one command hold the same values.
TEST_F(Quantization, EveryFileHoldsTheJudgedValues) {
  Log quiet(stderr, "", true);
  QuantizeArguments a = arguments("gptq-w4a16-g32");
  a.out = {at("q.gguf"), at("folder")};
  a.json = at("figures.json");
  const std::string said = output_of(a);
  EXPECT_THAT(said, HasSubstr("layers.0.ffn.up.weight"));
  EXPECT_THAT(said, HasSubstr("| full precision "));
  EXPECT_THAT(said, HasSubstr("| rtn "));
  EXPECT_THAT(said, HasSubstr("| gptq-w4a16-g32 "));
  a.json.clear();
  for (const char* format : {"gptq", "gptq_v2", "hf", "checkpoint"}) {
    a.out = {at(format)};
    a.format = format;
    a.no_baselines = true;
    output_of(a);
  }
  const OpenedModel gguf = open_model(at("q.gguf"), "", 0, quiet);
  for (const char* name : {"folder", "gptq", "gptq_v2", "hf", "checkpoint"}) {
    const OpenedModel other = open_model(at(name), "", 0, quiet);
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

TEST_F(Quantization, ARunsCheckpointsStay) {
  QuantizeArguments a = arguments("rtn-q4_0");
  a.format = "checkpoint";
  a.no_baselines = true;
  a.out = {at("model")};
  EXPECT_THAT(output_of(a), HasSubstr("is the model that is read"));
  save_tiny(*tiny_model(5), directory_ / "other", 3, std::nullopt);
  a.out = {at("other")};
  EXPECT_THAT(output_of(a), HasSubstr("holds a run's checkpoints, which are not replaced"));
  for (const char* name : {"model", "other"})
    EXPECT_EQ(train::list_checkpoints(directory_ / name / "checkpoints").size(), 1u) << name;
  a.out = {at("own")};
  for (int again = 0; again < 2; ++again) EXPECT_THAT(output_of(a), Not(HasSubstr("replaced")));
  EXPECT_EQ(train::list_checkpoints(directory_ / "own" / "checkpoints").size(), 1u);
}

TEST_F(Quantization, AnImportanceMatrixIsWrittenAndRead) {
  const models::DecoderSpec narrow = tiny_model(4)->spec();
  models::DecoderSpec spec = narrow;
  spec.width = 256;
  spec.head_dim = 128;
  spec.ffn_width = 256;
  models::Decoder wide(spec);
  models::initialise(wide.parameters(), "normal", 0.1, 5);
  save_tiny(wide, directory_ / "wide", 1, std::nullopt);
  QuantizeArguments a = arguments("imatrix-q4_k");
  a.model = at("wide");
  a.no_baselines = true;
  a.limit = 128;
  a.importance_out = at("imatrix.gguf");
  a.out = {at("a.gguf")};
  EXPECT_THAT(output_of(a), HasSubstr("q4_k"));
  a.importance_out.clear();
  a.calibration = at("imatrix.gguf");
  a.out = {at("b.gguf")};
  EXPECT_THAT(output_of(a), HasSubstr("q4_k"));
  EXPECT_EQ(read_text(at("a.gguf")), read_text(at("b.gguf")));
}

TEST_F(Quantization, SaysWhatCannotBeBeforeAnyWork) {
  EXPECT_THAT(output_of(arguments("gptq-q40")), HasSubstr("did you mean \"gptq-q4_0\"?"));

  QuantizeArguments file = arguments("rtn-fp8");
  file.out = {at("x.gguf")};
  EXPECT_THAT(output_of(file), HasSubstr("a GGUF cannot hold scheme rtn-fp8"));
  QuantizeArguments layout = arguments("rtn-q4_0");
  layout.out = {at("x")};
  layout.format = "gptq";
  EXPECT_THAT(output_of(layout), HasSubstr("a gptq folder cannot hold grid q4_0; it holds "));

  EXPECT_THAT(output_of(arguments("rtn-q4_k")), HasSubstr("rows must be a multiple of 256"));
  QuantizeArguments fallback = arguments("rtn-q4_k");
  fallback.fallback = "q8_0";
  EXPECT_THAT(output_of(fallback), HasSubstr("q8_0"));

  testing::write_corpus(directory_ / "other", testing::random_documents(1, 40, 200, 256), 1 << 20,
                        OtherTokenizer());
  QuantizeArguments text = arguments("gptq-q4_0");
  text.calibration = at("other");
  EXPECT_THAT(output_of(text), HasSubstr("reads tokenizer bytes, the shards were made with other"));
  QuantizeArguments none = arguments("gptq-q4_0");
  none.calibration.clear();
  EXPECT_THAT(output_of(none), HasSubstr("method gptq reads a calibration text, got none"));

  const auto bad = tiny_model(4);
  bad->parameters().at("layers.1.attn.o.weight").master[0][0] = std::nan("");
  save_tiny(*bad, directory_ / "bad", 1, std::nullopt);
  QuantizeArguments broken = arguments("rtn-q4_0");
  broken.model = at("bad");
  EXPECT_THAT(output_of(broken), HasSubstr("layers.1.attn.o.weight: its weights must be finite"));
}

TEST_F(Quantization, PlacesThatCannotBeWrittenAreSaidFirst) {
  Log quiet(stderr, "", true);
  QuantizeArguments a = arguments("gptq-q4_0");
  a.out = {"/nowhere/x.gguf"};
  EXPECT_EQ(output_of(a), "--out /nowhere/x.gguf: /nowhere cannot be written to: No such file or directory");
  a.out = {""};
  EXPECT_EQ(output_of(a), "--out must name a folder, got none");
  a.out = {at("model") + "/x/y", at("text") + ".json/z"};
  std::ofstream(at("text.json")) << "{}";
  EXPECT_THAT(output_of(a), HasSubstr("cannot be written to: not a directory"));
  a.out = {};
  a.json = at("model");
  EXPECT_THAT(output_of(a), HasSubstr("must be a file, and is a directory"));
  recipes::ExportOptions f32;
  f32.type = "f32";
  export_model(open_model(at("model"), "", 0, quiet), f32, at("s.gguf"), local_files());
  const std::string before = read_text(at("s.gguf"));
  a.json.clear();
  a.model = a.importance_out = at("s.gguf");
  EXPECT_THAT(output_of(a), HasSubstr("is the model that is read"));
  a.importance_out.clear();
  a.out = {at("s.gguf")};
  EXPECT_THAT(output_of(a), HasSubstr("is the model that is read"));
  EXPECT_THROW(export_verb({at("s.gguf"), "gguf", "f16", "same", at("s.gguf")}), Error);
  EXPECT_EQ(read_text(at("s.gguf")), before);
}

TEST_F(Quantization, ATypeThatDoesNotDivideRowsNamesTheTensor) {
  try {
    export_verb({at("model"), "gguf", "q6_k", "same", at("x.gguf")});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "--type: embed.weight has rows of 32, and q6_k wants a multiple of 256; q8_0 takes them");
  }
}

TEST_F(Quantization, ATextOfAnotherVocabularyIsNotScored) {
  EvalArguments a{at("model"), at("text"), ""};
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(eval_verb(a), ExitCode::kDone);  // the validation part of what data prepare makes
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("bits/byte"));
  testing::write_corpus(directory_ / "other", testing::random_documents(1, 40, 200, 256), 1 << 20,
                        OtherTokenizer());
  a.text = at("other");
  EXPECT_THROW(eval_verb(a), DataError);
}

TEST_F(Quantization, EvalLeavesNoTemporaryFiles) {
  const Path temporary = directory_ / "tmp";
  std::filesystem::create_directory(temporary);
  std::ofstream(at("a.txt")) << "a text of a few words\n";
  std::ofstream(at("empty.txt")) << "";
  const char* given = std::getenv("TMPDIR");
  const std::string before = given != nullptr ? given : "";
  ::setenv("TMPDIR", temporary.c_str(), 1);
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(eval_verb({at("model"), at("a.txt"), ""}), ExitCode::kDone);
  EXPECT_THROW(eval_verb({at("model"), at("empty.txt"), ""}), DataError);
  ::testing::internal::GetCapturedStdout();
  EXPECT_TRUE(std::filesystem::is_empty(temporary));
  given != nullptr ? ::setenv("TMPDIR", before.c_str(), 1) : ::unsetenv("TMPDIR");
}

TEST(QuantizationTables, ShowWhatThereIs) {
  const std::string table = model_table({{.name = "full precision"},
                                         {.name = "q",
                                          .bits_per_weight = 4.5,
                                          .file_bytes = 1234567,
                                          .score = eval::TextScore{100, 10, 40},
                                          .divergence = eval::Divergence{0.25, 0.5, 10}}});
  EXPECT_THAT(table, HasSubstr("1,234,567"));
  EXPECT_THAT(table, HasSubstr("0.25000"));
  EXPECT_THAT(table, HasSubstr("50.0%"));
  const std::string tensors = tensor_table({{"a", "q4_0", 64, 4.5, 0.1}, {"norm", "f32", 64, 32, 0}});
  EXPECT_THAT(tensors, HasSubstr("q4_0"));
  EXPECT_THAT(tensors, ::testing::Not(HasSubstr("norm")));
}

}  // namespace retort::launch
