#include "launch/command_line.h"

#include <gmock/gmock.h>

#include "core/file.h"
#include "launch/verbs.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::vector<std::string>& arguments) {
  try {
    parse_command_line(arguments);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string output_of(const std::vector<std::string>& arguments) {
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(parse_command_line(arguments)(), ExitCode::kDone);
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace

// The surface is closed: a new knob goes into its owner's Options, where a recipe reaches it.
TEST(CommandLine, IsFrozen) {
  EXPECT_EQ(output_of({"--help-all"}),
            read_text(testing::source_directory() / "tests" / "launch" / "command_line.txt"));
}

TEST(CommandLine, HelpOnEveryVerb) {
  EXPECT_THAT(output_of({"--help"}), HasSubstr("inspect"));
  EXPECT_THAT(output_of({"run", "--help"}), HasSubstr("retort run [OPTIONS] RECIPE"));
  EXPECT_THAT(output_of({"data", "prepare", "--help"}), HasSubstr("--tokenizer"));
  EXPECT_THAT(output_of({"generate", "--help"}), HasSubstr("--repetition-penalty"));
  EXPECT_THAT(output_of({"recipe", "explain", "-h"}), HasSubstr("KEY"));
}

TEST(CommandLine, MistakesAreUsageErrors) {
  EXPECT_THAT(output_of({}), HasSubstr("Usage: retort"));  // without a verb the help is shown
  EXPECT_THAT(error_of({"evla"}), HasSubstr("unknown verb \"evla\"; did you mean \"eval\"?"));
  EXPECT_THAT(error_of({"run"}), HasSubstr("RECIPE is required"));
  EXPECT_THAT(error_of({"run", "r.yaml", "--resume", "maybe"}), HasSubstr("--resume"));
  EXPECT_THAT(error_of({"export", "m", "--format", "onnx", "--out", "x"}), HasSubstr("--format"));
  EXPECT_THAT(error_of({"generate", "m", "--prompt", "a", "--ids", "1"}), HasSubstr("--ids"));
  EXPECT_THAT(error_of({"generate", "m", "--prompt", "a", "--top-p", "1.5"}),
              HasSubstr("--top-p must be in [0, 1], got 1.5"));
  EXPECT_THAT(error_of({"data", "prepare", "a.txt", "--out", "o", "--format", "jsnol"}),
              HasSubstr("--format must be one of"));
}

TEST(CommandLine, AnEmptyTextIsAText) {
  const testing::TemporaryDirectory directory;
  write_durably(local_files(), directory / "a.txt", "ab");
  const std::string file = (directory / "a.txt").string();
  EXPECT_EQ(output_of({"tokenizer", "encode", "--tokenizer", "bytes", file}), "97 98\n");
  EXPECT_EQ(output_of({"tokenizer", "encode", "--tokenizer", "bytes", "--text", "", file}), "\n");
}

TEST(CommandLine, MistypedNamesAreGuessed) {
  EXPECT_THAT(error_of({"recipe", "shw", "x"}),
              HasSubstr("unknown recipe action \"shw\"; did you mean \"show\"?"));
  EXPECT_THAT(error_of({"tokenizer", "encod"}), HasSubstr("did you mean \"encode\"?"));
  EXPECT_THAT(error_of({"eval", "m", "--text", "t", "--sequense=3"}),
              HasSubstr("did you mean \"--sequence\"?"));
  EXPECT_THAT(output_of({"--version"}), HasSubstr("retort 0."));
}

TEST(CommandLine, NumbersKeepTheirRange) {
  const std::vector<std::string> generate = {"generate", "m", "--prompt", "a"},
                                 eval = {"eval", "m", "--text", "t"},
                                 quantize = {"quantize", "m", "--scheme", "rtn-q4_0"};
  const auto said = [](std::vector<std::string> verb, const char* option, const char* value) {
    verb.insert(verb.end(), {option, value});
    return error_of(verb);
  };
  EXPECT_THAT(said({"data", "prepare", "a", "--out", "o"}, "--threads", "-1"),
              HasSubstr("in [0, 1024], got \"-1\""));
  EXPECT_THAT(said({"tokenizer", "train", "a", "--out", "o"}, "--threads", "-1"), HasSubstr("in [0, 1024]"));
  EXPECT_THAT(said(quantize, "--tokens", "0"), HasSubstr("--tokens must be >= 1, got 0"));
  EXPECT_THAT(said(eval, "--sequence", "-3"), HasSubstr(">= 1"));
  EXPECT_THAT(said(eval, "--limit", "-5"), HasSubstr(">= 0"));
  EXPECT_THAT(said(generate, "--seed", "-1"), HasSubstr(">= 0"));
  EXPECT_THAT(said({"plan", "quickstart"}, "--ranks", "0"),
              HasSubstr("--ranks: must be a whole number in [1, 1048576], got \"0\""));
  for (const char* ids : {"4294967297", "", "1,-1", "x"})
    EXPECT_THAT(said({"generate", "m"}, "--ids", ids), HasSubstr("--ids")) << ids;
}

TEST(CommandLine, SetTakesOneValueEach) {
  // RECIPE may follow --set: it is not swallowed by it.
  try {
    parse_command_line({"check", "--set", "a=1", "--set", "b=2", "/nowhere.yaml"})();
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nowhere.yaml: no such recipe"));
  }
}

TEST(CommandLine, BareAssignmentsAreSets) {
  const testing::TemporaryDirectory directory;
  const std::string run = (directory / "run").string();
  EXPECT_THAT(
      output_of({"check", "quickstart", "run.text=/etc/passwd", "--set", "train.steps=77", "run.dir=" + run}),
      ::testing::AllOf(HasSubstr("in " + run), HasSubstr("77 steps")));
  EXPECT_THROW(parse_command_line({"check", "quickstart", "nonsense"})(), ConfigError);
}

}  // namespace retort::launch
