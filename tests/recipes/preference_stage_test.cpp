// Train stages with a preference section: what they learn, measure, refuse, and that ranks and stops move no
// bit.
#include <cmath>

#include "formats/safetensors.h"
#include "recipes/preference_options.h"
#include "recipes/stages/preference_parts.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { sequence: 64, batch_tokens: 512, micro_batch: 2 }
model: { context: 64, layers: 2, width: 32, heads: 4, kv_heads: 2, ffn_width: 64 }
train: { steps: 20, precision: fp32, log_every: 1, checkpoint_every: 10, optimizer: { lr: 3.0e-3 }, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: pairs, kind: prepare, prepare: { validation: 0, text: [PAIRS], chosen: chosen, rejected: rejected } }
  - { name: held, kind: prepare, prepare: { validation: 0.25, text: [PAIRS], chosen: chosen, rejected: rejected } }
  - { name: rated, kind: prepare, prepare: { validation: 0, text: [RATED], prompt: [prompt], response: answer, label: good } }
  - { name: base, kind: train, data: { train: stage:text, validation: stage:text }, train: { steps: 30 } }
  - { name: tuned, kind: train, model: { from: stage:base }, data: { train: stage:pairs }, preference: { loss: dpo } }
)";

class PreferenceStage : public RecipeRun {
 protected:
  PreferenceStage() {
    std::ofstream pairs(directory_ / "pairs.jsonl"), rated(directory_ / "rated.jsonl");
    for (int i = 0; i < 24; ++i) {
      pairs << fmt::format(R"({{"chosen":"verse {0}: a small text","rejected":"verse {0}: some noise {0}"}})",
                           i)
            << "\n";
      rated << fmt::format(R"({{"prompt":"{}","answer":"{}","good":{}}})", i,
                           i % 3 == 0 ? "a verse" : "noise", i % 3 == 0)
            << "\n";
    }
  }
  Recipe recipe(const std::vector<std::string>& sets = {}, const std::string& more = "") const {
    std::string yaml = kRecipe + more;
    for (const char* name : {"pairs", "pairs", "rated"}) {
      std::string mark = name;
      std::transform(mark.begin(), mark.end(), mark.begin(),
                     [](char c) { return static_cast<char>(c - 32); });
      yaml.replace(yaml.find(mark), mark.size(), (directory_ / (std::string(name) + ".jsonl")).string());
    }
    return RecipeRun::recipe(yaml, sets);
  }
  std::string refusal(const std::vector<std::string>& sets) {
    try {
      return error_of(recipe(sets));
    } catch (const Error& error) {  // already as it is read
      return error.what();
    }
  }
  std::vector<formats::Json> lines(const std::string& stage, const std::string& run = "run") const {
    std::vector<formats::Json> out;
    std::ifstream file(directory_ / run / stage / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) out.push_back(formats::Json::parse(line));
    return out;
  }
};

class SlowPreferenceStage : public PreferenceStage {};

}  // namespace

TEST_F(PreferenceStage, LearnsWhatIsChosen) {
  const std::string said = run(recipe());
  ASSERT_EQ(code_, ExitCode::kDone) << said;
  EXPECT_THAT(
      said,
      HasSubstr("48 rows of pairs; 0 cut to 64 tokens, 0 left out without a label, 0 left out as alike"));
  const auto steps = lines("tuned");
  ASSERT_EQ(steps.size(), 20u);
  // Four pairs a step: the sum of four equal numbers and its quarter are exact.
  EXPECT_EQ(steps.front().at("loss").get<double>(), std::log(2.0));
  EXPECT_EQ(steps.front().at("pairs").get<int64_t>(), 4);
  EXPECT_EQ(steps.front().at("rewards/margins").get<double>(), 0.0);
  EXPECT_LT(steps.back().at("loss").get<double>(), 0.6);
  EXPECT_GT(steps.back().at("rewards/margins").get<double>(), 0.1);
  EXPECT_EQ(steps.back().at("rewards/accuracies").get<double>(), 1.0);
  for (const char* name : {"rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"})
    EXPECT_TRUE(steps.back().contains(name)) << name;
}

// What ends it compares models on a text; answers are none, so its own figures are what judges the grid.
TEST_F(PreferenceStage, LearnsOnAGridAndIsJudgedByItsAnswers) {
  const std::vector<std::string> grid = {"stages.tuned.quantize.weights.grid=q8_0",
                                         "stages.tuned.train.steps=4"};
  auto sets = grid;
  sets.emplace_back("stages.tuned.data.validation=stage:held");
  const std::string said = run(recipe(sets));
  ASSERT_EQ(code_, ExitCode::kDone) << said;
  EXPECT_THAT(said, HasSubstr("data.validation: stage:held holds pairs, not a text"));
  EXPECT_TRUE(std::isfinite(figure("tuned", "preference_loss")));
  EXPECT_LT(figure("tuned", "bits_per_weight"), 32);
  EXPECT_FALSE(read_result(directory_ / "run", "tuned")->contains("kl"));
  EXPECT_THAT(read_text(in_run("tuned/quantization.md")), HasSubstr("| trained"));

  sets = grid;
  sets.emplace_back("stages.tuned.data.validation=stage:text");
  sets.push_back("run.dir=" + (directory_ / "text").string());
  run(recipe(sets));
  ASSERT_EQ(code_, ExitCode::kDone);
  EXPECT_THAT(read_text(directory_ / "text/tuned/quantization.md"), HasSubstr("| rtn"));
  EXPECT_TRUE(read_result(directory_ / "text", "tuned")->contains("kl"));

  sets = {"stages.tuned.quantize.weights.grid=q8_0", "stages.tuned.train.steps=4",
          "stages.tuned.data.train=stage:rated",     "stages.tuned.data.validation=stage:rated",
          "stages.rated.prepare.validation=0.25",    "stages.tuned.preference.loss=kto",
          "run.dir=" + (directory_ / "kto").string()};
  run(recipe(sets));
  ASSERT_EQ(code_, ExitCode::kDone);
  EXPECT_TRUE(std::isfinite(read_result(directory_ / "kto", "tuned")->at("preference_loss").get<double>()));
}

TEST_F(PreferenceStage, GivesTheSameBytesOnRanksAndContinued) {
  run(recipe());
  const std::string whole = weights_digest("tuned"), metrics = read_text(in_run("tuned/metrics.jsonl"));
  for (const char* ranks : {"2", "4"}) {
    const std::string dir = std::string("ranks") + ranks;
    run(recipe({"run.dir=" + (directory_ / dir).string(), std::string("parallel.ranks=") + ranks,
                std::string("parallel.shard=") + (*ranks == '4' ? "parameters" : "none")}));
    EXPECT_EQ(weights_digest("tuned", dir), whole) << ranks;
    EXPECT_EQ(read_text(directory_ / dir / "tuned/metrics.jsonl"), metrics) << ranks;
  }
  std::filesystem::remove_all(train::list_checkpoints(in_run("tuned/checkpoints")).front());
  std::filesystem::remove(in_run("tuned/result.json"));
  run(recipe());
  EXPECT_EQ(weights_digest("tuned"), whole);
  EXPECT_EQ(read_text(in_run("tuned/metrics.jsonl")), metrics) << "the reference is where the stage began";
}

// The numbers that are kept are those of the reference beside the model: the same bytes come out, here where
// products give a row the same bits beside any others.
TEST_F(PreferenceStage, KeepsWhatTheReferenceSays) {
  run(recipe());
  const std::string whole = weights_digest("tuned"), metrics = read_text(in_run("tuned/metrics.jsonl"));
  for (const char* ranks : {"1", "2", "4"}) {
    const std::string dir = std::string("kept") + ranks;
    const std::vector<std::string> sets = {
        "run.dir=" + (directory_ / dir).string(), "stages.tuned.preference.precompute=true",
        std::string("parallel.ranks=") + ranks,
        std::string("parallel.shard=") + (*ranks == '4' ? "parameters" : "none")};
    EXPECT_THAT(run(recipe(sets)), HasSubstr("computing what the reference says of the answers"));
    EXPECT_EQ(weights_digest("tuned", dir), whole) << ranks;
    EXPECT_EQ(read_text(directory_ / dir / "tuned/metrics.jsonl"), metrics) << ranks;
    std::filesystem::remove_all(train::list_checkpoints(directory_ / dir / "tuned/checkpoints").front());
    std::filesystem::remove(directory_ / dir / "tuned/result.json");
    EXPECT_THAT(run(recipe(sets)), AllOf(HasSubstr("what the reference says of the answers, computed before"),
                                         Not(HasSubstr("computing"))));
    EXPECT_EQ(weights_digest("tuned", dir), whole) << ranks;
  }
}

// Numbers of another model or other answers are no reason to go on with them.
TEST_F(PreferenceStage, ComputesAgainWhatWasKeptOfSomethingElse) {
  const std::vector<std::string> kept = {"stages.tuned.preference.precompute=true"};
  run(recipe(kept));
  const std::string whole = weights_digest("tuned");
  auto other = kept;
  other.insert(other.end(), {"run.dir=" + (directory_ / "other").string(), "stages.base.train.steps=29"});
  run(recipe(other));
  const char* file = "tuned/reference.safetensors";
  std::filesystem::copy_file(directory_ / "other" / file, in_run(file),
                             std::filesystem::copy_options::overwrite_existing);
  const auto again = [&] {
    std::filesystem::remove_all(in_run("tuned/checkpoints"));
    std::filesystem::remove(in_run("tuned/result.json"));
    return run(recipe(kept));
  };
  EXPECT_THAT(again(), HasSubstr("was computed from other weights or answers, and is computed again"));
  EXPECT_EQ(weights_digest("tuned"), whole);
  // And what is there is what is used.
  const formats::SafetensorsFile there(in_run(file));
  const at::Tensor begins = there.tensor("source.0.begins").clone(),
                   log_p = there.tensor("source.0.log_p") + at::arange(48).remainder(2) * 5;
  const auto metadata = there.metadata();
  formats::write_safetensors(local_files(), in_run(file),
                             {{"source.0.begins", begins}, {"source.0.log_p", log_p}}, metadata);
  again();
  EXPECT_NE(weights_digest("tuned"), whole);
}

TEST_F(PreferenceStage, IsJudgedByAnswersThatAreHeldOut) {
  const std::vector<std::string> sets = {
      "stages.tuned.data.train=stage:held", "stages.tuned.data.validation=stage:held",
      "stages.tuned.train.validate_every=10", "stages.tuned.train.keep_best=true"};
  run(recipe(sets));
  ASSERT_EQ(code_, ExitCode::kDone);
  std::vector<formats::Json> judged;
  for (const formats::Json& line : lines("tuned"))
    if (line.contains("validation")) judged.push_back(line.at("validation"));
  ASSERT_EQ(judged.size(), 2u);
  EXPECT_LT(judged[0].at("preference_loss").get<double>(), std::log(2.0));
  EXPECT_GT(judged[0].at("preference_margin").get<double>(), 0.0);
  EXPECT_GE(judged[1].at("preference_accuracy").get<double>(), 0.5);
  EXPECT_EQ(figure("tuned", "preference_loss"), std::min(judged[0].at("preference_loss").get<double>(),
                                                         judged[1].at("preference_loss").get<double>()))
      << "keep_best chooses by it";
  const std::string whole = weights_digest("tuned"), metrics = read_text(in_run("tuned/metrics.jsonl"));
  for (const std::string more :
       {"parallel.ranks=2", "parallel.ranks=4", "stages.tuned.preference.precompute=true"}) {
    auto other = sets;
    other.insert(other.end(), {"run.dir=" + (directory_ / more).string(), more});
    if (more == "parallel.ranks=4") other.emplace_back("parallel.shard=parameters");
    run(recipe(other));
    EXPECT_EQ(read_text(directory_ / more / "tuned/metrics.jsonl"), metrics) << more;
    EXPECT_EQ(weights_digest("tuned", more), whole) << more;
  }
  // A text still judges by its bits per byte.
  run(recipe({"run.dir=" + (directory_ / "text").string(), "stages.tuned.data.validation=stage:text"}));
  EXPECT_TRUE(read_result(directory_ / "text", "tuned")->contains("bits_per_byte"));
}

// Whose baseline is a second pass, without gradients, between the first one and its backward pass.
TEST_F(PreferenceStage, RatedAnswersDivideTheirParameters) {
  const auto rated = [&](const std::string& name, std::vector<std::string> sets) {
    sets.insert(sets.end(), {"run.dir=" + (directory_ / name).string(), "stages.tuned.data.train=stage:rated",
                             "stages.tuned.preference.loss=kto", "stages.tuned.train.steps=4"});
    run(recipe(sets));
    ASSERT_EQ(code_, ExitCode::kDone);
  };
  rated("one", {});
  rated("divided", {"parallel.ranks=2", "parallel.shard=parameters"});
  EXPECT_EQ(weights_digest("tuned", "divided"), weights_digest("tuned", "one"));
}

// Over adapters the reference is the base below them.
TEST_F(SlowPreferenceStage, TrainsAdaptersAndEveryLoss) {
  run(recipe({"stages.tuned.adapters.rank=4"}));
  EXPECT_EQ(lines("tuned").front().at("loss").get<double>(), std::log(2.0));
  EXPECT_GT(lines("tuned").back().at("rewards/margins").get<double>(), 0.02);
  for (const distill::PreferenceLoss& loss : distill::preference_losses()) {
    const std::string dir = "of_" + loss.name;
    run(recipe({"run.dir=" + (directory_ / dir).string(), "stages.tuned.preference.loss=" + loss.name,
                std::string("stages.tuned.data.train=stage:") + (loss.paired() ? "pairs" : "rated"),
                "stages.base.train.steps=1", "stages.tuned.train.steps=2"}));
    EXPECT_TRUE(std::isfinite(lines("tuned", dir).back().at("loss").get<double>())) << loss.name;
  }
  EXPECT_EQ(lines("tuned", "of_kto").back().at("rows").get<int64_t>(), 8);
  EXPECT_TRUE(lines("tuned", "of_kto").back().contains("kl"));
}

// Rated answers have no accuracy: nothing is compared.
TEST(HeldOutFigures, AreNamed) {
  const distill::HeldOutScore pairs{
      .loss = 0.5, .count = 2, .parts = {{"rewards/margins", 3}, {"rewards/accuracies", 1}}};
  EXPECT_EQ(
      held_out_figures(pairs),
      formats::Json({{"preference_loss", 0.5}, {"preference_margin", 3.0}, {"preference_accuracy", 1.0}}));
  const distill::HeldOutScore rated{.loss = 0.5, .count = 2, .parts = {{"rewards/margins", 3}, {"kl", 1}}};
  EXPECT_EQ(held_out_figures(rated), formats::Json({{"preference_loss", 0.5}, {"preference_margin", 3.0}}));
}

TEST_F(PreferenceStage, IsRefusedByName) {
  const auto error = [&](const std::vector<std::string>& sets) { return refusal(sets); };
  EXPECT_THAT(
      error({"stages.tuned.data.train=stage:text"}),
      AllOf(HasSubstr("data.train"), HasSubstr("must hold pairs for preference.loss dpo (prepare.chosen and "
                                               "rejected), stage:text holds text")));
  EXPECT_THAT(error({"stages.tuned.data.train=stage:rated"}), HasSubstr("stage:rated holds rated"));
  EXPECT_THAT(error({"stages.tuned.preference.loss=kto"}),
              HasSubstr("must hold rated for preference.loss kto"));
  EXPECT_THAT(
      error({"stages.base.data.train=stage:pairs"}),
      HasSubstr("must hold text, stage:pairs holds pairs, which a train stage with preference reads"));
  EXPECT_THAT(error({"stages.tuned.data.validation=stage:rated"}),
              HasSubstr("must hold text or pairs for preference.loss dpo"));
  EXPECT_THAT(error({"stages.base.data.validation=stage:held"}),
              HasSubstr("must hold text, stage:held holds pairs"));
  EXPECT_THAT(error({"stages.tuned.preference.loss=kto", "stages.tuned.data.train=stage:rated",
                     "stages.tuned.preference.precompute=true"}),
              HasSubstr("precompute"));
  EXPECT_THAT(error({"stages.tuned.preference.gamma=1"}), HasSubstr("gamma"));
  EXPECT_THAT(error({"stages.tuned.preference.loss=simpo", "stages.tuned.preference.label_smoothing=.2"}),
              HasSubstr("label_smoothing"));
  EXPECT_THAT(error({"stages.tuned.data.micro_batch=1"}),
              HasSubstr("must be even, since a pair is two rows, got 1"));
  EXPECT_THAT(error({"stages.tuned.preference.loss=kto", "stages.tuned.data.train=stage:rated",
                     "stages.tuned.data.micro_batch=1"}),
              HasSubstr("must be at least 2 for kto"));
  for (const char* loss : {"kto", "apo_zero_rated"})
    EXPECT_THAT(
        error({std::string("stages.tuned.preference.loss=") + loss, "stages.tuned.data.train=stage:rated",
               "stages.tuned.preference.desirable_weight=0", "stages.tuned.preference.undesirable_weight=0"}),
        HasSubstr("preference.desirable_weight: must be > 0 where undesirable_weight is 0"))
        << loss;
  EXPECT_THAT(error({"stages.tuned.data.packing=best_fit"}), HasSubstr("a row holds one answer"));
  EXPECT_THAT(error({"stages.tuned.preference.loss=dp"}), HasSubstr("did you mean \"dpo\"?"));
}

// Shards that are there already are known by what they say of themselves.
TEST_F(PreferenceStage, KnowsShardsOutsideTheRun) {
  run(recipe());
  const std::string pairs = in_run("pairs/train").string(), text = in_run("text/train").string();
  EXPECT_THAT(refusal({"stages.tuned.data.train=" + text}), HasSubstr("must hold pairs"));
  EXPECT_THAT(refusal({"stages.base.data.train=" + pairs}), HasSubstr("holds pairs"));
}

// The baseline of kto is of a micro-batch: another one is another stage.
TEST_F(PreferenceStage, OfKtoHasItsMicroBatchInItsIdentity) {
  const auto identity = [&](const char* loss, const char* train, const char* micro_batch) {
    const Recipe one = recipe({std::string("stages.tuned.preference.loss=") + loss,
                               std::string("stages.tuned.data.train=") + train,
                               std::string("stages.tuned.data.micro_batch=") + micro_batch});
    return stage_identity(one, one.stages.back());
  };
  EXPECT_EQ(identity("dpo", "stage:pairs", "2"), identity("dpo", "stage:pairs", "4"));
  EXPECT_NE(identity("kto", "stage:rated", "2"), identity("kto", "stage:rated", "4"));
}

}  // namespace retort::recipes
