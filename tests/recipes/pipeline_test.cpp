#include "recipes/pipeline.h"

#include <unistd.h>

#include "data/token_shards.h"
#include "formats/json.h"
#include "recipes/validate.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 1, ffn_width: 32 }
train: { steps: 2, precision: fp32, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: model, kind: train }
  - { name: report, kind: report }
)";

// Modes hold for this user, who is not root while the object lives.
class Mortal {
 public:
  Mortal() { EXPECT_TRUE(before_ != 0 || ::seteuid(65534) == 0); }
  ~Mortal() { EXPECT_EQ(::seteuid(before_), 0); }
  Mortal(const Mortal&) = delete;
  Mortal& operator=(const Mortal&) = delete;

 private:
  const uid_t before_ = ::geteuid();
};

class PipelineTest : public RecipeRun {
 protected:
  Recipe recipe(const std::vector<std::string>& sets = {}) const { return RecipeRun::recipe(kRecipe, sets); }
  formats::Json json(const std::string& path) const { return formats::read_json(in_run(path)); }
};

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_F(PipelineTest, FinishedStagesAreSkipped) {
  EXPECT_EQ(count(run(recipe()), "done already"), 0);
  EXPECT_EQ(code_, ExitCode::kDone);
  EXPECT_EQ(json("exit.json").at("code"), 0);
  EXPECT_GT(json("model/result.json").at("bits_per_byte").get<double>(), 0.0);
  EXPECT_EQ(json("model/result.json").at("tokens"), 128);

  const std::string again = run(recipe());
  EXPECT_EQ(count(again, "done already"), 3);
  EXPECT_THAT(again, HasSubstr("| model"));  // the table is shown all the same
  // The resolved recipe is a recipe, and the same one.
  const Recipe resolved = read_recipe((directory_ / "run" / "recipe.yaml").string());
  EXPECT_EQ(count(run(resolved), "done already"), 3);
}

TEST_F(PipelineTest, AProfileOfFinishedStepsIsNoneAndSaysSo) {
  EXPECT_THAT(run(recipe(), {.profile = 2}), ::testing::Not(HasSubstr("--profile:")));
  const std::string again = run(recipe(), {.profile = 2});
  EXPECT_THAT(again, HasSubstr("--profile: model is done already"));
  EXPECT_EQ(count(again, "--profile:"), 1) << "of training stages alone";
}

TEST_F(PipelineTest, EveryFigureIsKnownToClaims) {
  run(recipe());
  for (const Stage& stage : recipe().stages) {
    const formats::Json result = json(stage.name + "/result.json");
    for (const auto& [name, value] : result.items())
      if (value.is_number()) {
        EXPECT_THAT(kind_of(stage).figures, ::testing::Contains(name)) << stage.name;
      }
  }
}

TEST_F(PipelineTest, ATrainingThatDivergesFailsAndKeepsItsCheckpoints) {
  const std::vector<std::string> sets = {"train.steps=3", "train.optimizer.lr=1e30"};
  for (int start = 0; start < 2; ++start) {  // nor is it finished for the next one
    EXPECT_THAT(error_of(recipe(sets)), HasSubstr("[train] step 3: training has diverged"));
    EXPECT_EQ(code_, ExitCode::kNonFinite);
    EXPECT_EQ(json("exit.json").at("stage"), "model");
    EXPECT_FALSE(std::filesystem::exists(in_run("model/result.json")));
    EXPECT_TRUE(std::filesystem::exists(in_run("model/checkpoints/step_00000003/manifest.json")));
  }
  run(recipe({"train.steps=3"}));
  EXPECT_EQ(code_, ExitCode::kDone);
}

// As results have them that were made before such a training failed.
TEST_F(PipelineTest, AReportShowsFiguresThatAreNotFiniteAsNone) {
  run(recipe());
  formats::Json result = json("model/result.json");
  result["bits_per_byte"] = nullptr, result["tokens"] = nullptr;
  write_durably(local_files(), in_run("model/result.json"), result.dump());
  std::filesystem::remove_all(in_run("report"));
  EXPECT_THAT(run(recipe()), ::testing::ContainsRegex("\\| model [^\n]*\\| +- \\| +- \\|"));
  EXPECT_EQ(code_, ExitCode::kDone);
}

TEST_F(PipelineTest, AReportDrawsWhatWasValidatedAsItTrained) {
  run(recipe());
  EXPECT_FALSE(std::filesystem::exists(in_run("report/curves.svg"))) << "one validation is no curve";
  run(recipe({"train.steps=4", "train.validate_every=2"}));
  const std::string svg = read_text(in_run("report/curves.svg"));
  EXPECT_THAT(svg, HasSubstr("bits per byte of held-out text"));
  EXPECT_THAT(svg, HasSubstr(">model</text>"));
  EXPECT_EQ(count(svg, "<polyline"), 1);
  EXPECT_THAT(svg, HasSubstr(">200</text>")) << "2 and 4 steps of 64 tokens";
}

TEST_F(PipelineTest, AChangedStageAndWhatHangsOnItAreDoneAnew) {
  run(recipe());
  const std::string changed = run(recipe({"train.steps=3"}));
  EXPECT_EQ(count(changed, "done already"), 1);
  EXPECT_EQ(json("model/result.json").at("steps"), 3);
  EXPECT_EQ(formats::read_json(directory_ / "run" / "model.replaced" / "result.json").at("steps"), 2);

  std::ofstream(directory_ / "a.txt", std::ios::app) << "one more line of text\n";
  EXPECT_EQ(count(run(recipe({"train.steps=3"})), "done already"), 0);
}

TEST_F(PipelineTest, WorkThatWasPutAsideIsTakenBack) {
  run(recipe());
  const std::string digest = json("model/checkpoints/step_00000002/manifest.json").at("xxh3");
  run(recipe({"train.steps=3"}));
  EXPECT_THAT(run(recipe({"train.steps=4"})), HasSubstr("model.replaced.2"));  // and model.replaced stays
  const std::string back = run(recipe());
  EXPECT_THAT(back, HasSubstr("taken back from"));
  EXPECT_EQ(count(back, "done already"), 3);  // the report was put aside too
  EXPECT_EQ(json("model/checkpoints/step_00000002/manifest.json").at("xxh3"), digest);
  EXPECT_EQ(count(run(recipe({"train.steps=3"})), "done already"), 3);
  EXPECT_EQ(json("model/result.json").at("steps"), 3);
}

TEST_F(PipelineTest, ARunThatFailsMovesNothing) {
  run(recipe());
  std::filesystem::create_directory(directory_ / "d");
  for (const std::string input : {"d", "a.txt"}) {
    Recipe wrong = recipe();
    wrong.stages[1].get<DataOptions>().train = (directory_ / input).string();
    EXPECT_THAT(error_of(wrong), HasSubstr(input));
  }
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run/model.replaced"));
  EXPECT_EQ(count(run(recipe()), "done already"), 3);
}

TEST_F(PipelineTest, TextsOfOneStageAreOfOneVocabulary) {
  std::ofstream(directory_ / "words.json") << R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
    "merges": [["a", "b"]]}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}})";
  data::TokenShardWriter writer(local_files(), directory_ / "words",
                                *data::open_tokenizer(directory_ / "words.json"), "test");
  writer.add(std::vector<int32_t>(100, 2), 200);
  writer.finish();
  try {
    recipe({"data.validation=" + (directory_ / "words").string()});
    ADD_FAILURE() << "before anything is trained";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the text of data.train with bytes"));
  }
  Recipe mixed = recipe();
  mixed.stages[1].get<DataOptions>().validation = (directory_ / "words").string();
  EXPECT_THAT(error_of(mixed), HasSubstr("the text of data.train with bytes"));
  run(recipe());
  Recipe further = recipe();
  further.stages[1].get<ModelOptions>().from = in_run("model").string();
  further.stages[1].name = "further";
  further.stages[1].get<DataOptions>().train = (directory_ / "words").string();
  further.stages[1].get<DataOptions>().validation.clear();
  EXPECT_THAT(error_of(further), HasSubstr("reads tokenizer bytes"));
}

TEST_F(PipelineTest, ACaptureWithoutItsStageWritesNothing) {
  run(recipe());
  const std::string before = read_text(in_run("recipe.yaml"));
  PipelineOptions options;
  options.only = "capture";
  EXPECT_THROW(run(recipe({"train.steps=3"}), options), ConfigError);
  EXPECT_EQ(read_text(in_run("recipe.yaml")), before);
  EXPECT_EQ(json("exit.json").at("code"), 0);
}

// Training that would go on from it, and a stage that reads the model.
TEST_F(PipelineTest, Fault11AStrictRunRefusesADamagedCheckpoint) {
  const std::vector<std::string> sets = {"train.steps=4", "train.checkpoint_every=2"};
  run(recipe(sets));
  const Path newest = in_run("model/checkpoints/step_00000004");
  const auto damage = [&] { std::filesystem::resize_file(newest / "optimizer.safetensors", 100); };
  Recipe further = recipe(sets);
  further.stages.back() = further.stages[1];
  further.stages.back().name = "further";
  further.stages.back().get<ModelOptions>().from = "stage:model";
  damage();
  EXPECT_THAT(error_of(further, {.strict = true}), HasSubstr("step_00000004/optimizer.safetensors"));
  EXPECT_EQ(json("exit.json").at("code"), 65);
  EXPECT_THAT(run(further), HasSubstr("falling back"));
  EXPECT_EQ(json("further/result.json").at("steps"), 4);

  std::filesystem::remove(in_run("model/result.json"));  // as if it had been stopped
  EXPECT_THAT(error_of(recipe(sets), {.strict = true}), HasSubstr("step_00000004/optimizer.safetensors"));
  EXPECT_EQ(json("exit.json").at("code"), 65);
  EXPECT_THAT(run(recipe(sets)), HasSubstr("falling back"));
  std::filesystem::remove(in_run("model/result.json"));
  run(recipe(sets), {.strict = true});  // whole again
  EXPECT_EQ(json("model/result.json").at("steps"), 4);
}

// Before a run, and when one is to go on.
TEST_F(PipelineTest, Fault16ADirectoryThatMayOnlyBeReadIsNamed) {
  namespace fs = std::filesystem;
  const fs::perms only_read = fs::perms::owner_read | fs::perms::owner_exec | fs::perms::group_read |
                              fs::perms::group_exec | fs::perms::others_read | fs::perms::others_exec;
  const auto error = [&](const std::vector<std::string>& sets) {
    const Mortal user;
    return error_of(recipe(sets));
  };
  fs::permissions(directory_.path(), only_read);
  EXPECT_THAT(error({}), HasSubstr(in_run("").parent_path().string() + ": cannot create directory: "));
  EXPECT_EQ(code_, ExitCode::kInputOutput);
  fs::permissions(directory_.path(), fs::perms::owner_all);
  run(recipe());
  fs::permissions(directory_.path(), only_read);
  fs::permissions(in_run(""), only_read);
  EXPECT_THAT(error({"train.steps=3"}), HasSubstr(in_run(".lock").string() + ": cannot create: Permission"));
  EXPECT_EQ(code_, ExitCode::kInputOutput);
  for (const Path& path : {directory_.path(), in_run("")}) fs::permissions(path, fs::perms::owner_all);
}

TEST_F(PipelineTest, HalvesOfFilesAreSwept) {
  run(recipe());
  std::filesystem::remove(in_run("model/result.json"));
  std::filesystem::create_directories(in_run("model.tmp.7"));  // a folder that was to be the stage's
  for (const char* half :
       {"exit.json.tmp.7", "model/progress.json.tmp.77", "model/quantization.md.tmp.9", "model.tmp.7/half"})
    std::ofstream(in_run(half)) << "{";
  run(recipe());
  for (const char* half :
       {"exit.json.tmp.7", "model/progress.json.tmp.77", "model/quantization.md.tmp.9", "model.tmp.7"})
    EXPECT_FALSE(std::filesystem::exists(in_run(half))) << half;
}

TEST_F(PipelineTest, UnfinishedWorkThatWasPutAsideGoesOn) {
  const Path work = directory_ / "run" / "model";
  run(recipe({"train.steps=4", "train.checkpoint_every=2"}));
  std::filesystem::remove(work / "result.json");  // as if it had been stopped at step 2
  std::filesystem::remove_all(work / "checkpoints" / "step_00000004");
  run(recipe({"train.steps=3"}));
  EXPECT_THAT(run(recipe({"train.steps=4", "train.checkpoint_every=2"})), HasSubstr("step_00000002"));
  EXPECT_EQ(json("model/result.json").at("steps"), 4);
}

TEST_F(PipelineTest, WhatNoRunHasWrittenIsLeftAlone) {
  const Path mine = directory_ / "run" / "text" / "mine.txt";
  std::filesystem::create_directories(mine.parent_path());
  std::ofstream(mine) << "a letter\n";
  for (int i = 0; i < 3; ++i) EXPECT_THAT(error_of(recipe()), HasSubstr("is in the place of stage text"));
  EXPECT_EQ(read_text(mine), "a letter\n");
  std::filesystem::remove_all(mine.parent_path());
  std::ofstream(directory_ / "run" / "recipe.yaml") << "run: {}\n";
  EXPECT_THAT(error_of(recipe()), HasSubstr("holds a recipe.yaml that no run has written"));
  EXPECT_EQ(read_text(directory_ / "run" / "recipe.yaml"), "run: {}\n");
}

TEST_F(PipelineTest, APathThatIsNoTextHidesNoError) {
  std::ofstream(directory_ / "e\xff.txt") << "";
  Recipe broken = recipe();
  broken.run.text = {(directory_ / "e\xff.txt").string()};
  EXPECT_THROW(run(broken), DataError);
  EXPECT_THAT(json("exit.json").at("message").get<std::string>(), HasSubstr("e\ufffd.txt"));
}

TEST_F(PipelineTest, NeverResumeStartsAnew) {
  run(recipe());
  EXPECT_EQ(count(run(recipe(), {.start_over = true}), "done already"), 0);
}

TEST_F(PipelineTest, RanksThreadsAndNamesDoNotCount) {
  const Recipe one = recipe({"data.micro_batch=1"});
  const Recipe other = recipe({"data.micro_batch=1", "parallel.ranks=4", "run.threads=1", "run.name=other"});
  EXPECT_EQ(stage_identity(one, one.stages[1]), stage_identity(other, other.stages[1]));
  const Recipe seeded = recipe({"data.micro_batch=1", "run.seed=2"});
  EXPECT_NE(stage_identity(one, one.stages[1]), stage_identity(seeded, seeded.stages[1]));
}

TEST_F(PipelineTest, UnfinishedTrainingGoesOnWhateverIsWatchedAndIsNotPutAsideInSilence) {
  run(recipe());
  std::filesystem::remove(directory_ / "run" / "model" / "result.json");
  const std::string watched = run(recipe(
      {"train.log_every=5", "train.validate_every=1", "train.checkpoint_every=7", "train.keep_checkpoints=9",
       "train.max_skipped=8", "train.max_failed_saves=8", "data.micro_batch=2"}));
  EXPECT_THAT(watched, HasSubstr("continuing from"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run" / "model.replaced"));

  std::filesystem::remove(directory_ / "run" / "model" / "result.json");
  const std::string changed = run(recipe({"train.optimizer.lr=0.5"}));
  EXPECT_THAT(changed, HasSubstr("warning: "));
  EXPECT_THAT(changed,
              HasSubstr("model: its recipe or inputs changed (train.optimizer.lr 0.001 -> 0.5); it is "
                        "done again, and its unfinished work is in "));
  EXPECT_THAT(changed, HasSubstr("model.replaced"));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "run" / "model.replaced" / "checkpoints" / "LATEST"));
}

// After the end, and of a run that was stopped: only what is missing is trained, and the shorter work stays.
TEST_F(PipelineTest, MoreStepsGoOnFromWhatIsThere) {
  const auto steps = [&](int64_t n, const char* run = "run") {
    return recipe({fmt::format("train.steps={}", n), "train.schedule.kind=constant",
                   "train.checkpoint_every=2", "run.dir=" + (directory_ / run).string()});
  };
  run(steps(6, "whole"));
  run(steps(2));
  for (const int64_t n : {4, 6}) {
    const std::string said = run(steps(n));
    EXPECT_THAT(said, HasSubstr("is longer now"));
    EXPECT_THAT(said, HasSubstr(fmt::format("step_0000000{}", n - 2)));
    EXPECT_EQ(json("model/result.json").at("steps"), n);
    EXPECT_EQ(json("model/result.json").at("tokens"), 64 * n);
  }
  EXPECT_EQ(weights_digest("model"), weights_digest("model", "whole"));
  // Killed before its first checkpoint, it begins there once more.
  std::filesystem::remove(in_run("model/result.json"));
  std::filesystem::remove_all(in_run("model/checkpoints"));
  EXPECT_THAT(run(steps(6)), HasSubstr("step_00000004"));
  EXPECT_EQ(weights_digest("model"), weights_digest("model", "whole"));
  EXPECT_EQ(count(run(steps(2)), "done already"), 3);  // as it was
  // Fewer steps, or another key beside them, are another recipe.
  for (const Recipe& other : {steps(1), recipe({"train.steps=9", "train.optimizer.lr=0.5"})}) {
    const std::string said = run(other);
    EXPECT_THAT(said, HasSubstr("its recipe or inputs changed"));
    EXPECT_EQ(said.find("continuing from"), std::string::npos) << said;
  }
}

// More epochs are more steps, whatever train.steps says.
TEST_F(PipelineTest, MoreEpochsGoOnFromWhatIsThere) {
  const auto epochs = [&](const char* n, const char* run = "run", const char* steps = "1000") {
    return recipe({fmt::format("train.epochs={}", n), fmt::format("train.steps={}", steps),
                   "train.schedule.kind=constant", "run.dir=" + (directory_ / run).string()});
  };
  run(epochs("1.5", "whole"));
  const int64_t all = formats::read_json(directory_ / "whole/model/result.json").at("steps");
  run(epochs("1"));
  const int64_t some = json("model/result.json").at("steps");
  ASSERT_LT(some, all);
  EXPECT_EQ(count(run(epochs("1", "run", "7")), "done already"), 3);
  const std::string said = run(epochs("1.5"));
  EXPECT_THAT(said, HasSubstr("is longer now (train.epochs 1 -> 1.5)"));
  EXPECT_THAT(said, HasSubstr(fmt::format("continuing from {}/model.replaced/checkpoints/step_{:08}",
                                          (directory_ / "run").string(), some)));
  EXPECT_EQ(json("model/result.json").at("steps"), all);
  EXPECT_EQ(weights_digest("model"), weights_digest("model", "whole"));
}

// As it is no longer than train.steps, which are read. One that somebody wrote looks the same, so both are told.
TEST_F(PipelineTest, AWarmupThatNobodyWroteIsNoLongerThanTheEpochs) {
  std::string yaml = kRecipe;
  const std::string written = ", schedule: { warmup: 0 }";
  yaml.erase(yaml.find(written), written.size());
  const std::string said = run(RecipeRun::recipe(yaml, {"train.epochs=0.1"}));
  ASSERT_EQ(code_, ExitCode::kDone);
  const auto steps = json("model/result.json").at("steps").get<int64_t>();
  EXPECT_LT(steps, 49);
  EXPECT_EQ(
      count(said,
            fmt::format("train.schedule.warmup 50 is cut to {0}: 0.1 epochs are {0} steps of 4 rows", steps)),
      1);
  EXPECT_EQ(count(run(recipe({"train.epochs=0.1"})), "is cut to"), 0) << "a warmup of 0";
  EXPECT_THAT(error_of(RecipeRun::recipe(yaml, {"train.epochs=0.1", "train.schedule.warmup=49"})),
              HasSubstr("train.schedule.warmup must be at most"));
}

// Rates follow from the length too: what an undisturbed run would not have come to is not gone on from.
TEST_F(PipelineTest, LongerWorkGoesOnFromWhereItsRatesAreTheSame) {
  const auto longer = [&](const char* kind, int64_t steps, const char* run = "run") {
    return recipe({fmt::format("train.steps={}", steps), fmt::format("train.schedule.kind={}", kind),
                   "train.schedule.decay=0.5", "train.checkpoint_every=1", "train.keep_checkpoints=9",
                   "run.dir=" + (directory_ / run).string()});
  };
  run(longer("wsd", 8, "whole"));
  run(longer("wsd", 4));
  EXPECT_THAT(run(longer("wsd", 8)), HasSubstr("model.replaced/checkpoints/step_00000003"))
      << "the rate of update 2 is the peak, that of update 3 is not";
  EXPECT_EQ(weights_digest("model"), weights_digest("model", "whole"));

  run(longer("cosine", 8, "whole"));
  run(longer("cosine", 4));
  std::filesystem::remove_all(in_run("model/checkpoints/step_00000001"));  // as keep_checkpoints does
  const std::string said = run(longer("cosine", 8));
  EXPECT_THAT(said, HasSubstr("warning: train.schedule.kind cosine"));
  EXPECT_THAT(said, HasSubstr("training starts over"));
  EXPECT_EQ(said.find("continuing from"), std::string::npos) << said;
  EXPECT_EQ(weights_digest("model"), weights_digest("model", "whole"));
}

TEST_F(PipelineTest, ThreadRanksGiveTheSameBits) {
  run(recipe({"data.micro_batch=1"}));
  const std::string one =
      read_text(directory_ / "run" / "model" / "checkpoints" / "step_00000002" / "manifest.json");
  run(recipe({"data.micro_batch=1", "parallel.ranks=4"}), {.start_over = true});
  EXPECT_EQ(read_text(directory_ / "run" / "model" / "checkpoints" / "step_00000002" / "manifest.json"), one);
}

TEST_F(PipelineTest, AMixtureTrainsOnBothOfItsTexts) {
  std::ofstream(directory_ / "b.txt") << std::string(100, 'b') << "\n" << std::string(40, 'c') << "\n";
  const Recipe mixed = parse_recipe(fmt::format(R"(
run: {{ seed: 1, dir: {0}/run }}
data: {{ mixture: [ {{ train: stage:a, weight: 3 }}, {{ train: stage:b }} ], sequence: 16, batch_tokens: 64, micro_batch: 4 }}
model: {{ context: 32, layers: 1, width: 32, heads: 1, ffn_width: 32 }}
train: {{ steps: 4, precision: fp32, schedule: {{ warmup: 0 }} }}
stages:
  - {{ name: a, kind: prepare, prepare: {{ text: [ {0}/a.txt ] }} }}
  - {{ name: b, kind: prepare, prepare: {{ text: [ {0}/b.txt ] }} }}
  - {{ name: model, kind: train }}
)",
                                                directory_.path().string()),
                                    "mixed.yaml", {});
  run(mixed);
  EXPECT_EQ(code_, ExitCode::kDone);
  const std::string metrics = read_text(directory_ / "run/model/metrics.jsonl");
  EXPECT_THAT(metrics, HasSubstr("\"stage:b\":0.6666666666666666}"));  // 4 of 16 rows, of 6 windows
  EXPECT_THAT(run(mixed), HasSubstr("model (train): done already"));
  std::ofstream(directory_ / "b.txt", std::ios::app) << "more\n";
  EXPECT_THAT(run(mixed), HasSubstr("b: its recipe or inputs changed"));
}

TEST_F(PipelineTest, Fault17ASecondRunInTheDirectoryIsRefused) {
  std::filesystem::create_directories(directory_ / "run");
  const DirectoryLock held(directory_ / "run");
  try {
    const auto comm = comm::make_self_comm();
    Log log(stderr, "", true);
    run_pipeline(recipe(), {}, *comm, local_files(), log, stop_);
    FAIL();
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("another run"));
    EXPECT_EQ(error.code(), ExitCode::kInputOutput);
  }
}

TEST_F(PipelineTest, AStopIsPreemptedAndNothingIsLost) {
  stop_ = true;
  run(recipe());
  EXPECT_EQ(code_, ExitCode::kPreempted);
  EXPECT_EQ(json("exit.json").at("code"), 75);
  stop_ = false;
  run(recipe());
  EXPECT_EQ(code_, ExitCode::kDone);
}

TEST_F(PipelineTest, AnotherRunsCheckpointIsContinued) {
  run(recipe({"train.steps=4", "train.schedule.kind=constant", "train.checkpoint_every=2"}));
  const std::string whole = json("model/checkpoints/step_00000004/manifest.json").at("xxh3");
  const Path half = directory_ / "half";
  std::filesystem::copy(directory_ / "run" / "model" / "checkpoints" / "step_00000002", half);
  const std::vector<std::string> sets = {"train.steps=4", "train.schedule.kind=constant",
                                         "train.checkpoint_every=2"};
  EXPECT_THROW(run(recipe(sets), {.resume_from = in_run("model/checkpoints/step_00000002")}), ConfigError);
  const std::string said = run(recipe(sets), {.resume_from = half});
  EXPECT_THAT(said, HasSubstr("continuing from " + half.string()));
  EXPECT_EQ(json("model/checkpoints/step_00000004/manifest.json").at("xxh3"), whole);
  EXPECT_EQ(count(run(recipe(sets), {.resume_from = half}), "done already"), 3);
}

TEST_F(PipelineTest, ErrorsAreLeftInExitJson) {
  const Recipe read = recipe();
  std::ofstream(directory_ / "a.txt") << "";
  EXPECT_THROW(
      {
        ::testing::internal::CaptureStderr();
        const auto comm = comm::make_self_comm();
        Log log;
        run_pipeline(read, {}, *comm, local_files(), log, stop_);
      },
      DataError);
  ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(json("exit.json").at("code"), 65);
  EXPECT_EQ(json("exit.json").at("stage"), "text");
  EXPECT_THAT(json("exit.json").at("message").get<std::string>(), HasSubstr("a.txt"));
}

}  // namespace retort::recipes
