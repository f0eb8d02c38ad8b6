#include "launch/verbs.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/file.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using artifacts::save_tiny;
using artifacts::tiny_model;

using ::testing::HasSubstr;

template <class Arguments>
std::string output_of(ExitCode (*verb)(const Arguments&), const Arguments& arguments) {
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(verb(arguments), ExitCode::kDone);
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace

TEST(Verbs, RecipeListsShowsAndExplains) {
  EXPECT_THAT(output_of(recipe_verb, {"list", ""}), HasSubstr("quickstart\n"));
  EXPECT_THAT(output_of(recipe_verb, {"show", "models/gpt2-124m"}), HasSubstr("width: 768"));
  EXPECT_THAT(output_of(recipe_verb, {"explain", "train.steps"}), HasSubstr("default: 1000"));
  EXPECT_THROW(recipe_verb({"show", "nothing"}), ConfigError);
}

TEST(Verbs, CheckPlansWithoutTouchingData) {
  EXPECT_THAT(output_of(check_verb, {"quickstart", {"run.text=/dev/null"}, 0}),
              HasSubstr("parameters stored"));
  EXPECT_THROW(check_verb({"quickstart", {"run.text=/dev/null", "train.steps=0"}, 0}), ConfigError);
  EXPECT_THROW(check_verb({"quickstart", {"run.text=/dev/null"}, 7}), ConfigError);
}

TEST(Verbs, InspectKnowsPresetsAndFiles) {
  const std::string preset = output_of(inspect_verb, {"preset:mobillama-0.5b"});
  EXPECT_THAT(preset,
              HasSubstr("feed-forward          34603008       761266176\n"));  // 3 * 2048 * 5632, 22 times
  EXPECT_THAT(preset, HasSubstr("total                534865920      1261529088\nas f32                 2.14 "
                                "GB         5.05 GB\n"));
  testing::TemporaryDirectory directory;
  const Path path = directory / "x.safetensors";
  formats::write_safetensors(local_files(), path, {{"a", at::ones({2, 3})}});
  EXPECT_THAT(output_of(inspect_verb, {path.string()}), HasSubstr("a  F32  [2, 3]"));
  EXPECT_THROW(inspect_verb({(directory / "nothing").string()}), IoError);
  EXPECT_THROW(inspect_verb({directory.path().string()}), DataError);
}

TEST(Verbs, DataPrepareWritesShardsThatInspectVerifies) {
  testing::TemporaryDirectory directory;
  std::ofstream(directory / "a.txt") << "one line\nanother line\na third\n";
  DataArguments arguments;
  arguments.out = (directory / "out").string();
  arguments.prepare.text = {(directory / "a.txt").string()};
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(data_verb(arguments), ExitCode::kDone);
  ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(output_of(inspect_verb, {(directory / "out" / "train").string()}), HasSubstr("checksums hold"));
  arguments.prepare.text = {(directory / "missing.txt").string()};
  EXPECT_THROW(data_verb(arguments), IoError);
  std::ofstream(directory / "empty.txt") << "";
  arguments.prepare.text = {(directory / "empty.txt").string()};
  EXPECT_THROW(data_verb(arguments), DataError);
}

TEST(Verbs, GenerateSaysEachPromptsContinuation) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(3), directory / "tiny", 1, std::nullopt);
  GenerateArguments arguments;
  arguments.model = (directory / "tiny").string();
  arguments.sampling.tokens = 12;
  arguments.prompts = {"a line", "another, longer line"};
  arguments.json = true;
  const auto lines = [&] {
    std::istringstream text(output_of(generate_verb, arguments));
    std::vector<formats::Json> out;
    for (std::string line; std::getline(text, line);) out.push_back(formats::parse_json(line, "stdout"));
    return out;
  };
  const std::vector<formats::Json> both = lines();
  ASSERT_EQ(both.size(), 2u);
  for (const formats::Json& line : both) {
    EXPECT_EQ(line["ids"].size(), 12u);
    EXPECT_EQ(line["finish"], "length");
    EXPECT_GT(line["tokens_per_second"], 0);
  }
  EXPECT_EQ(both[1]["prompt"], "another, longer line");
  arguments.prompts.erase(arguments.prompts.begin());
  EXPECT_EQ(lines()[0]["ids"], both[1]["ids"]);

  arguments.json = false;
  EXPECT_EQ(output_of(generate_verb, arguments),
            "another, longer line" + both[1]["text"].get<std::string>() + "\n");
  arguments.ids = both[0]["prompt_ids"].get<std::vector<int64_t>>();
  EXPECT_EQ(output_of(generate_verb, arguments),
            fmt::format("{} \n", fmt::join(both[0]["ids"].get<std::vector<int>>(), " ")));
  arguments.ids.clear();
  arguments.prompts.clear();
  EXPECT_THROW(generate_verb(arguments), ConfigError);
}

TEST(Verbs, TokenizerTrainsEncodesAndDecodes) {
  testing::TemporaryDirectory directory;
  std::ofstream(directory / "a.txt") << "low lower lowest, slow slower slowest\n";
  TokenizerArguments train;
  train.action = "train";
  train.files = {(directory / "a.txt").string()};
  train.out = (directory / "out").string();
  train.training.vocabulary = 260;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(tokenizer_verb(train), ExitCode::kDone);
  ::testing::internal::GetCapturedStderr();
  TokenizerArguments over_a_model = train;
  over_a_model.out = (directory / "model").string();
  std::filesystem::create_directory(over_a_model.out);
  std::ofstream(Path(over_a_model.out) / "config.json") << "{}";
  EXPECT_THROW(tokenizer_verb(over_a_model), IoError);
  TokenizerArguments use;
  use.tokenizer = train.out;
  use.action = "encode";
  use.text = "low<|endoftext|>";
  const std::string ids = output_of(tokenizer_verb, use);
  EXPECT_THAT(ids, HasSubstr(" 259\n"));
  use.action = "decode";
  use.text = ids;
  EXPECT_EQ(output_of(tokenizer_verb, use), "low<|endoftext|>");
  use.text = "1, x";
  EXPECT_THROW(tokenizer_verb(use), ConfigError);
  use.json = true;
  use.text = "[[108, 111], []]";
  EXPECT_EQ(output_of(tokenizer_verb, use), "[\"lo\",\"\"]\n");
  use.action = "encode";
  use.text = R"(["a", "ab"])";
  EXPECT_EQ(output_of(tokenizer_verb, use), "[[97],[97,98]]\n");
  use.text = "[3]";
  EXPECT_THROW(tokenizer_verb(use), DataError);
}

TEST(Verbs, LogitsDemandsEvenRowsOfIds) {
  testing::TemporaryDirectory directory;
  const auto ids = [&](const char* text) {
    std::ofstream(directory / "ids.json") << text;
    return LogitsArguments{"preset:nothing", (directory / "ids.json").string(), (directory / "out").string()};
  };
  EXPECT_THROW(logits_verb(ids("[[1, 2]]")), ConfigError);  // the model comes first
}

}  // namespace retort::launch
