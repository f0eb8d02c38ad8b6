#include "recipes/run_claim.h"

#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const ArmFigures kFigures = {{"fp", {{"bits_per_byte", {2.0, 2.2}}}},
                             {"rtn", {{"bits_per_byte", {3.0, 3.0}}}},
                             {"qat", {{"bits_per_byte", {2.25, 2.4}}}}};

Verdict verdict_of(const std::string& of, const std::string& is, double value) {
  BarOptions bar;
  bar.arm = "qat";
  bar.against = "rtn";
  bar.reference = "fp";
  bar.of = of;
  bar.is = is;
  bar.value = value;
  return judge(bar, kFigures);
}

constexpr const char* kRecipe = R"(
claim:
  says: longer is better
  seeds: [1, 2]
  bars:
    - { says: longer wins, arm: long, against: short, is: at_most, value: 0.0 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 1, ffn_width: 32 }
train: { steps: 2, precision: fp32, optimizer: { lr: 1.0e-2 }, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: short, kind: train }
  - { name: long, kind: train, train: { steps: 20 } }
)";

class ClaimTest : public RecipeRun {
 protected:
  Recipe recipe() const { return RecipeRun::recipe(kRecipe, {"run.dir=" + (directory_ / "claim").string()}); }
  ExitCode run(const Recipe& recipe) {
    ::testing::internal::CaptureStderr();
    ::testing::internal::CaptureStdout();
    const auto comm = comm::make_self_comm();
    Log log(stderr, "", true);
    ExitCode code = ExitCode::kInternal;
    try {
      code = run_claim(recipe, {}, *comm, local_files(), log, stop_);
    } catch (...) {
      take_captured();
      throw;
    }
    take_captured();
    return code;
  }
  void take_captured() {
    out_ = ::testing::internal::GetCapturedStdout();
    log_ = ::testing::internal::GetCapturedStderr();
  }
  std::string out_, log_;
};

}  // namespace

TEST(Judge, PairsBySeed) {
  const Verdict difference = verdict_of("difference", "at_most", -0.6);
  EXPECT_THAT(difference.values, ElementsAre(DoubleNear(-0.75, 1e-12), DoubleNear(-0.6, 1e-12)));
  EXPECT_NEAR(difference.mean, -0.675, 1e-12);
  EXPECT_NEAR(difference.deviation, 0.15 / std::sqrt(2.0), 1e-12);
  EXPECT_THAT(verdict_of("ratio", "at_most", 1.0).values,
              ElementsAre(DoubleNear(0.75, 1e-12), DoubleNear(0.8, 1e-12)));
  EXPECT_THAT(verdict_of("recovery", "at_least", 0.7).values,
              ElementsAre(DoubleNear(0.75, 1e-12), DoubleNear(0.75, 1e-12)));
}

TEST(Judge, TheMeanDecidesAndSeedsAreCounted) {
  EXPECT_TRUE(verdict_of("difference", "at_most", -0.65).holds);
  EXPECT_EQ(verdict_of("difference", "at_most", -0.65).seeds_holding, 1);
  EXPECT_FALSE(verdict_of("difference", "at_most", -0.7).holds);
  EXPECT_TRUE(verdict_of("difference", "within", 0.7).holds);
  EXPECT_FALSE(verdict_of("difference", "within", 0.6).holds);
  EXPECT_FALSE(verdict_of("difference", "at_least", 0.0).holds);
}

TEST_F(ClaimTest, EverySeedIsARunAndTheBarIsJudged) {
  EXPECT_EQ(run(recipe()), ExitCode::kDone) << out_;
  EXPECT_THAT(out_, HasSubstr("longer wins"));
  const formats::Json report = formats::read_json(directory_ / "claim" / "claim.json");
  EXPECT_EQ(report.at("arms").at("long").at("bits_per_byte").size(), 2u);
  EXPECT_LT(report.at("bars").at(0).at("mean").get<double>(), 0.0);
  EXPECT_TRUE(std::filesystem::exists(directory_ / "claim" / "seed-2" / "long" / "result.json"));
  EXPECT_EQ(read_text(directory_ / "claim" / "claim.md"), out_);
}

// Made once, linked into every seed's run, and a figure of it is every seed's.
TEST_F(ClaimTest, WhatIsSharedRunsOnce) {
  Recipe shared = recipe();
  shared.claim->shared = {"text", "short"};
  EXPECT_EQ(run(shared), ExitCode::kDone) << out_;
  const Path directory = directory_ / "claim";
  EXPECT_TRUE(std::filesystem::exists(directory / "shared" / "short" / "result.json"));
  for (const char* seed : {"seed-1", "seed-2"})
    EXPECT_TRUE(std::filesystem::is_symlink(directory / seed / "short")) << seed;
  const formats::Json arms = formats::read_json(directory / "claim.json").at("arms");
  const auto of = [&](const char* arm) {
    return arms.at(arm).at("bits_per_byte").get<std::vector<double>>();
  };
  EXPECT_EQ(of("short").at(0), of("short").at(1));
  EXPECT_NE(of("long").at(0), of("long").at(1));
  const auto written = std::filesystem::last_write_time(directory / "shared" / "short" / "result.json");
  EXPECT_EQ(run(shared), ExitCode::kDone) << out_;
  EXPECT_EQ(std::filesystem::last_write_time(directory / "shared" / "short" / "result.json"), written);
}

TEST_F(ClaimTest, AMissedBarIsAnExitCodeAndTheFiguresStand) {
  Recipe missed = recipe();
  missed.claim->bars[0].is = "at_least";
  EXPECT_EQ(run(missed), ExitCode::kBarMissed);
  EXPECT_THAT(read_text(directory_ / "claim" / "claim.md"), HasSubstr("NO"));
}

TEST_F(ClaimTest, AColumnMayBeOfSomeArmsOnly) {
  Recipe some = recipe();
  some.claim->arms = {"text", "long"};
  some.claim->figures = {"bits_per_byte", "train_tokens"};
  EXPECT_EQ(run(some), ExitCode::kDone) << out_;
  EXPECT_THAT(out_, ::testing::ContainsRegex("\\| text +\\| +- \\| +[0-9.,]+ \\|"));
  EXPECT_THAT(out_, ::testing::ContainsRegex("\\| long +\\| +[0-9.]+ [^|]*\\| +- \\|"));
  some.claim->figures = {"train_token"};
  EXPECT_THROW(run(some), DataError);
}

TEST_F(ClaimTest, AFigureThatIsNotThereIsNamed) {
  Recipe wrong = recipe();
  wrong.claim->bars[0].figure = "bits_per_bite";
  try {
    run(wrong);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"bits_per_byte\""));
  }
}

// Neither does it keep the stages after it from running.
TEST_F(ClaimTest, AnArmThatDivergesDoesNotCostTheOthersTheirTable) {
  std::string yaml = kRecipe;
  yaml.replace(yaml.find("  - { name: long"), 0,
               "  - { name: wild, kind: train, train: { steps: 3, optimizer: { lr: 1.0e30 } } }\n"
               "  - { name: tame, kind: train, model: { from: stage:wild } }\n");
  yaml.replace(yaml.find("data:"), 0,
               "    - { says: wild wins, arm: wild, against: short, is: at_most, value: 0.0 }\n");
  const Recipe wild = RecipeRun::recipe(yaml, {"run.dir=" + (directory_ / "claim").string()});
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(run(wild), ExitCode::kNonFinite) << out_;
    EXPECT_THAT(out_, ::testing::ContainsRegex("\\| long +\\| +[0-9.]+ "));
    EXPECT_THAT(out_, ::testing::ContainsRegex("\\| short +\\| +[0-9.]+ "));
    EXPECT_THAT(out_, HasSubstr("wild failed with seed 1, 2"));
    EXPECT_THAT(out_, HasSubstr("tame failed with seed 1, 2"));
    EXPECT_THAT(log_, HasSubstr("tame is left out: it needs wild, which has no result"));
    EXPECT_THAT(out_, Not(::testing::ContainsRegex("\\| (wild|tame) +\\|")));
  }
  const formats::Json report = formats::read_json(directory_ / "claim" / "claim.json");
  EXPECT_FALSE(report.at("arms").contains("wild"));
  EXPECT_EQ(report.at("failed").at("wild"), (std::vector<int64_t>{1, 2}));
  EXPECT_TRUE(report.at("bars").at(0).at("holds").get<bool>());
  EXPECT_FALSE(report.at("bars").at(1).at("holds").get<bool>());
  EXPECT_TRUE(report.at("bars").at(1).at("mean").is_null());
  const formats::Json exit = formats::read_json(directory_ / "claim" / "seed-1" / "exit.json");
  EXPECT_EQ(exit.at("stage"), "wild, tame");
  EXPECT_EQ(exit.at("code"), 77);
}

// Once the failed arm succeeds, the report is written again.
TEST_F(ClaimTest, AReportIsOfTheArmsThatEndedAndNamesTheOthers) {
  const auto claim = [&](const char* rate) {
    std::string yaml = kRecipe;
    yaml.replace(
        yaml.find("  - { name: long"), 0,
        fmt::format("  - {{ name: wild, kind: train, train: {{ steps: 3, optimizer: {{ lr: {} }} }} }}\n",
                    rate));
    return RecipeRun::recipe(yaml + "  - { name: table, kind: report }\n",
                             {"run.dir=" + (directory_ / "claim").string()});
  };
  const auto report = [&] { return read_text(directory_ / "claim/seed-2/table/report.md"); };
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(run(claim("1.0e30")), ExitCode::kNonFinite) << out_;
    EXPECT_THAT(report(), ::testing::ContainsRegex("\\| short +\\|"));
    EXPECT_THAT(report(), ::testing::ContainsRegex("\\| long +\\|"));
    EXPECT_THAT(report(), Not(HasSubstr("| wild")));
    EXPECT_THAT(report(), HasSubstr("\nwild has no result: its numbers are not finite"));
    EXPECT_THAT(out_, Not(HasSubstr("table failed")));
  }
  EXPECT_EQ(run(claim("1.0e-3")), ExitCode::kDone) << out_;
  EXPECT_THAT(report(), ::testing::ContainsRegex("\\| wild +\\|"));
  EXPECT_THAT(report(), Not(HasSubstr("has no result")));
}

// Every arm may need it.
TEST_F(ClaimTest, ASharedStageThatDivergesEndsTheClaimAndIsNamed) {
  Recipe shared =
      RecipeRun::recipe(kRecipe, {"run.dir=" + (directory_ / "claim").string(), "stages.short.train.steps=3",
                                  "stages.short.train.optimizer.lr=1e30"});
  shared.claim->shared = {"text", "short"};
  EXPECT_THAT([&] { run(shared); }, ::testing::ThrowsMessage<NonFiniteError>(::testing::ContainsRegex(
                                        "^stage short: \\[train\\] step 3: training has diverged, "
                                        "([a-z0-9_.]+ is not finite|the validation loss is [a-z-]+)\\.")));
  EXPECT_EQ(formats::read_json(directory_ / "claim/shared/exit.json").at("stage"), "short");
  EXPECT_FALSE(std::filesystem::exists(directory_ / "claim/seed-1"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "claim/claim.json"));
}

TEST_F(ClaimTest, AStopLeavesTheRestForTheNextStart) {
  stop_ = true;
  EXPECT_EQ(run(recipe()), ExitCode::kPreempted);
  stop_ = false;
  EXPECT_EQ(run(recipe()), ExitCode::kDone);
}

}  // namespace retort::recipes
