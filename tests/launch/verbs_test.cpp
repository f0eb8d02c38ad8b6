#include "launch/verbs.h"

#include <gmock/gmock.h>
#include <link.h>

#include <cstdlib>
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

// The libraries of a process that has run nothing yet.
const std::vector<std::string> kLoadedAtStart = [] {
  std::vector<std::string> names;
  const auto add = [](dl_phdr_info* library, size_t, void* out) {
    static_cast<std::vector<std::string>*>(out)->emplace_back(library->dlpi_name);
    return 0;
  };
  ::dl_iterate_phdr(add, &names);
  return names;
}();

}  // namespace

// What wants a GPU, NCCL or MPI is opened on demand.
TEST(Verbs, AreLinkedWithNothingThatNeedsADeviceOrALauncher) {
  EXPECT_THAT(kLoadedAtStart, ::testing::Contains(HasSubstr("libtorch_cpu")));
  for (const char* library :
       {"libtorch_cuda", "libc10_cuda", "libretort_", "libnccl", "libmpi", "libcuda.so"})
    EXPECT_THAT(kLoadedAtStart, ::testing::Not(::testing::Contains(HasSubstr(library))));
}

TEST(Verbs, RecipeListsShowsAndExplains) {
  EXPECT_THAT(output_of(recipe_verb, {"list", ""}), HasSubstr("quickstart\n"));
  EXPECT_THAT(output_of(recipe_verb, {"show", "presets/gpt2-124m"}), HasSubstr("width: 768"));
  EXPECT_THAT(output_of(recipe_verb, {"explain", "train.steps"}), HasSubstr("default: 1000"));
  EXPECT_THROW(recipe_verb({"show", "nothing"}), ConfigError);
}

TEST(Verbs, CheckPlansWithoutTouchingData) {
  EXPECT_THAT(output_of(check_verb, {"quickstart", {"run.text=/etc/passwd"}, 0}),
              HasSubstr("parameters stored"));
  EXPECT_THROW(check_verb({"quickstart", {"run.text=/etc/passwd", "train.steps=0"}, 0}), ConfigError);
  EXPECT_THROW(check_verb({"quickstart", {"run.text=/etc/passwd"}, 7}), ConfigError);
}

TEST(Verbs, CheckRefusesWhatARunRefusesInTheEnvironment) {
  for (const char* variable : {"RETORT_CPU", "RETORT_INJECT"}) {
    ::setenv(variable, "nonsense", 1);
    EXPECT_THROW(check_verb({"quickstart", {"run.text=/etc/passwd"}, 0}), ConfigError) << variable;
    ::unsetenv(variable);
  }
}

TEST(Verbs, PlanTellsWhatStagesCost) {
  const std::vector<std::string> sets = {"run.text=/etc/passwd"};
  const std::string text = output_of(plan_verb, {"quickstart", sets, 2, "h200"});
  EXPECT_THAT(text, HasSubstr("distilled: 2 rank(s) of h200 (NVIDIA H200 SXM, 141 GB) in "));
  EXPECT_THAT(text, HasSubstr("parameters  197,472 stored, 197,472 trained, 418,656 expanded"));
  const formats::Json json = formats::Json::parse(output_of(plan_verb, {"quickstart", sets, 0, "cpu", true}));
  EXPECT_EQ(json["stages"].size(), 4u);
  EXPECT_EQ(json["stages"][0]["parameters"]["stored"], 1869504);
  EXPECT_GT(json["stages"][0]["time"]["seconds_a_step"].get<double>(), 0);
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

TEST(Verbs, InspectTakesShardsForACacheOnly) {
  testing::TemporaryDirectory directory;
  EXPECT_THROW(inspect_verb({directory.path().string(), "x", ""}), ConfigError);
}

TEST(Verbs, RenderShowsAConversationInItsTemplate) {
  testing::TemporaryDirectory directory;
  const auto file = [&](const char* name, const char* text) {
    std::ofstream(directory / name) << text;
    return (directory / name).string();
  };
  RenderArguments use;
  use.options.source = "chatml";
  use.messages = file("talk.json", R"([{"role": "user", "content": "Hi"}])");
  use.options.generation_prompt = true;
  EXPECT_EQ(output_of(render_verb, use), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  use.options.source =
      file("x.jinja", "{{ tools[0].n }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}");
  use.options.eos = "</s>";
  use.tools = file("tools.json", R"([{"n": 1.0}])");
  use.messages =
      file("talk.json", R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}])");
  use.json = true;
  EXPECT_EQ(output_of(render_verb, use), "{\"text\":\"1.0Hi</s>Yes</s>\",\"ids\":null,\"spans\":[[9,16]]}\n");
  use.options.source = "chatlm";
  EXPECT_THROW(render_verb(use), ConfigError);
}

TEST(Verbs, TokenizerTakesATextAFileAndMany) {
  TokenizerArguments use;
  use.tokenizer = "bytes";
  use.action = "decode";
  use.text = "108 111, 119";
  EXPECT_EQ(output_of(tokenizer_verb, use), "low");
  use.json = true;
  use.text = "[[108, 111], []]";
  EXPECT_EQ(output_of(tokenizer_verb, use), "[\"lo\",\"\"]\n");
  testing::TemporaryDirectory directory;
  std::ofstream(directory / "texts.json") << R"(["a", "ab"])";
  use.action = "encode";
  use.text.reset();
  use.files = {(directory / "texts.json").string()};
  EXPECT_EQ(output_of(tokenizer_verb, use), "[[97],[97,98]]\n");
}

TEST(Verbs, RunWarnsOfManyMoreThreadsThanProcessors) {
  EXPECT_THAT(excess_of_threads(1024, 2),
              HasSubstr("run.threads 1024 is more than twice this machine's 2 processors"));
  EXPECT_THAT(excess_of_threads(5, 2), HasSubstr("run.threads 5"));
  for (const int64_t threads : {1, 2, 4}) EXPECT_EQ(excess_of_threads(threads, 2), "") << threads;
  EXPECT_EQ(excess_of_threads(1024, 0), "");
}

TEST(Verbs, DevicesNamesTheProcessor) {
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(devices_verb(), ExitCode::kDone);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("cpu      "));
}

TEST(Verbs, LogitsDemandsEvenRowsOfIds) {
  testing::TemporaryDirectory directory;
  const auto ids = [&](const char* text) {
    std::ofstream(directory / "ids.json") << text;
    return LogitsArguments{"preset:nothing", (directory / "ids.json").string(), (directory / "out").string()};
  };
  EXPECT_THROW(logits_verb(ids("[[1, 2]]")), ConfigError);  // the model comes first
  save_tiny(*tiny_model(4), directory / "model", 1, std::nullopt);
  LogitsArguments over_itself = ids("[[1, 2]]");
  over_itself.model = (directory / "model").string();
  over_itself.out = over_itself.ids;
  EXPECT_THROW(logits_verb(over_itself), ConfigError);
  EXPECT_EQ(read_text(over_itself.ids), "[[1, 2]]");
}

}  // namespace retort::launch
