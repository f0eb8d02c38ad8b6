// What a train stage looks at as it goes: figures of tasks and samples, beside weights that stay what they
// were.
#include "recipes/stages/watch.h"

#include "recipes/html_report.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 2 }
model: { context: 64, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 6, precision: fp32, validate_every: 2, checkpoint_every: 4, keep_checkpoints: 5, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: tiny, kind: train }
)";

class WatchedTraining : public RecipeRun {
 protected:
  WatchedTraining() {
    write_durably(local_files(), directory_ / "labels.csv",
                  "text,label\nfine,verse\nbad,small\nlovely,verse\nodd,verse\n");
    write_durably(local_files(), directory_ / "mine.yaml",
                  "include: classification\ntask: mine\ndoc_to_choice: [small, verse]\n"
                  "dataset_kwargs: { data_files: { test: labels.csv } }\n");
  }
  std::vector<std::string> watching(std::vector<std::string> more = {}) const {
    more.push_back("stages.tiny.watch.tasks=[" + (directory_ / "mine.yaml").string() + "]");
    more.emplace_back("stages.tiny.watch.prompts=[\"verse \", \"a <b\"]");
    more.emplace_back("stages.tiny.watch.tokens=4");
    return more;
  }
  // By step, as metrics.jsonl has them.
  std::map<int64_t, formats::Json> validations(const std::string& run) const {
    std::map<int64_t, formats::Json> out;
    std::istringstream lines(read_text(directory_ / run / "tiny" / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const formats::Json json = formats::parse_json(line, "metrics");
      if (json.contains("validation")) out[json["step"]] = json["validation"];
    }
    return out;
  }
  std::map<std::string, std::string> checkpoints(const std::string& run) const {
    std::map<std::string, std::string> out;
    const Path below = directory_ / run / "tiny" / "checkpoints";
    for (const auto& entry : std::filesystem::recursive_directory_iterator(below))
      if (entry.is_regular_file())
        out[std::filesystem::relative(entry.path(), below).string()] = read_text(entry.path());
    return out;
  }
};

}  // namespace

TEST_F(WatchedTraining, HasFiguresAndSamplesAndTheSameWeights) {
  run(recipe(kRecipe, watching()));
  ASSERT_EQ(code_, ExitCode::kDone);
  const auto seen = validations("run");
  ASSERT_EQ(seen.size(), 3u);
  for (const auto& [step, figures] : seen) {
    EXPECT_TRUE(figures.contains("bits_per_byte")) << step;
    EXPECT_GE(figures.at("mine.acc").get<double>(), 0.0) << step;
  }
  EXPECT_EQ(figure("tiny", "mine.brier_score"), seen.at(6).at("mine.brier_score").get<double>());
  EXPECT_NE(seen.at(2).at("mine.brier_score"), seen.at(6).at("mine.brier_score"));
  const std::string samples = read_text(in_run("tiny/samples.jsonl"));
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 6) << samples;
  EXPECT_THAT(samples, HasSubstr("{\"step\":2,\"prompt\":\"verse \",\"text\":"));
  const std::string page = html_report({directory_ / "run"});
  EXPECT_THAT(page, HasSubstr("tiny as it was trained"));
  EXPECT_THAT(page, HasSubstr("a &lt;b"));
  EXPECT_THAT(page, HasSubstr("validation mine.acc"));

  run(recipe(kRecipe, {"run.dir=" + (directory_ / "plain").string()}));
  EXPECT_EQ(checkpoints("run"), checkpoints("plain"));
  EXPECT_THAT(run(recipe(kRecipe)), HasSubstr("done already")) << "it decides nothing of the stage";
}

TEST_F(WatchedTraining, HasTheSameFiguresOnRanksAndAfterAKill) {
  run(recipe(kRecipe, watching()));
  run(recipe(kRecipe, watching({"run.dir=" + (directory_ / "two").string(), "parallel.ranks=2"})));
  EXPECT_EQ(validations("two"), validations("run"));
  const std::string samples = read_text(in_run("tiny/samples.jsonl"));
  EXPECT_EQ(read_text(directory_ / "two/tiny/samples.jsonl"), samples);
  run(recipe(kRecipe, watching({"run.dir=" + (directory_ / "divided").string(), "parallel.ranks=2",
                                "parallel.shard=parameters"})));
  EXPECT_EQ(validations("divided"), validations("run"));
  EXPECT_EQ(read_text(directory_ / "divided/tiny/samples.jsonl"), samples);

  // As if it had been killed after step 6 was sampled and before its checkpoint was saved.
  std::filesystem::remove_all(in_run("tiny/checkpoints/step_00000006"));
  std::filesystem::remove(in_run("tiny/result.json"));
  run(recipe(kRecipe, watching()));
  EXPECT_EQ(read_text(in_run("tiny/samples.jsonl")), samples);
  EXPECT_EQ(validations("run"), validations("two"));
}

TEST_F(WatchedTraining, ChoosesByATask) {
  run(recipe(kRecipe, watching({"stages.tiny.watch.best=mine.brier_score", "train.keep_best=true",
                                "data.validation=''", "train.steps=12", "train.optimizer.lr=0.05"})));
  ASSERT_EQ(code_, ExitCode::kDone);
  const auto seen = validations("run");
  const auto best = std::ranges::min_element(
      seen, {}, [](const auto& one) { return one.second.at("mine.brier_score").template get<double>(); });
  EXPECT_EQ(figure("tiny", "mine.brier_score"), best->second.at("mine.brier_score").get<double>());
}

// One that turns out too long once there is a tokenizer.
TEST_F(WatchedTraining, GoesOnWithoutAPromptThatDoesNotFit) {
  std::string yaml = kRecipe;
  yaml.insert(yaml.find("  - { name: text"),
              "  - { name: words, kind: tokenizer, tokenizer: { vocabulary: 270 } }\n");
  const std::string too_long(600, 'q');
  const std::string said = run(recipe(
      yaml, {"stages.text.prepare.tokenizer=stage:words", "model.vocabulary=270",
             "stages.tiny.watch.prompts=[\"verse \", \"" + too_long + "\"]", "stages.tiny.watch.tokens=4"}));
  ASSERT_EQ(code_, ExitCode::kDone) << said;
  EXPECT_THAT(said, HasSubstr("watch.prompts: \"qqqq"));
  EXPECT_THAT(said, HasSubstr("must fit the context of 64 tokens"));
  const std::string samples = read_text(in_run("tiny/samples.jsonl"));
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 3) << samples;
}

TEST_F(WatchedTraining, GoesOnWithoutATaskThatFails) {
  write_durably(local_files(), directory_ / "torn.csv", "text,label\nfine,nothing\n");
  write_durably(local_files(), directory_ / "torn.yaml",
                "include: classification\ntask: torn\ndoc_to_choice: [small, verse]\n"
                "dataset_kwargs: { data_files: { test: torn.csv } }\n");
  const std::string torn = "stages.tiny.watch.tasks=[" + (directory_ / "torn.yaml").string() + "]";
  const std::string said = run(recipe(kRecipe, {torn}));
  ASSERT_EQ(code_, ExitCode::kDone) << said;
  EXPECT_THAT(said, HasSubstr("watch.tasks: step 2: "));
  EXPECT_THAT(said, HasSubstr("the right answer must be one of 2 choices"));
  EXPECT_EQ(validations("run").size(), 3u) << "the text's figures are there";
  const auto chosen = recipe(kRecipe, {torn, "stages.tiny.watch.best=torn.acc", "train.keep_best=true",
                                       "run.dir=" + (directory_ / "chosen").string()});
  EXPECT_THAT(error_of(chosen), HasSubstr("the right answer must be one of 2 choices"))
      << "the checkpoint follows from it";
}

TEST_F(WatchedTraining, IsChecked) {
  const auto refused = [&](std::vector<std::string> sets) {
    try {
      recipe(kRecipe, std::move(sets));
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused(watching()), "");
  EXPECT_THAT(refused(watching({"stages.tiny.watch.every=3"})),
              HasSubstr("multiple of train.validate_every 2"));
  EXPECT_THAT(refused(watching({"stages.tiny.watch.every=3", "train.validate_every=0"})),
              HasSubstr("watch.every: needs validations before the end: set train.validate_every, got 3"));
  EXPECT_THAT(
      refused({"stages.tiny.watch.prompts=[verse]", "stages.tiny.watch.best=x", "train.keep_best=true"}),
      HasSubstr("watch.best: must be a figure of watch.tasks, which have none, got \"x\""));
  EXPECT_THAT(refused(watching({"stages.tiny.watch.best=mine.ac", "train.keep_best=true"})),
              HasSubstr("did you mean \"mine.acc\"?"));
  EXPECT_THAT(refused(watching({"stages.tiny.watch.best=mine.acc"})), HasSubstr("neither is set"));
  EXPECT_THAT(refused({"stages.tiny.watch.tasks=[arc_esy]"}), HasSubstr("arc_easy"));
  EXPECT_THAT(refused({"stages.tiny.watch.tokens=4"}), HasSubstr("must name a task"));
  EXPECT_THAT(refused({"stages.tiny.watch.tasks=[hellaswag]"}),
              HasSubstr("hellaswag.jsonl: no such file; watch.data is the folder of such files"));
  EXPECT_THAT(refused({"stages.tiny.watch.prompts=[\"\"]"}),
              HasSubstr("watch.prompts: \"\": a prompt must have at least one token"));
  EXPECT_THAT(refused(watching({"stages.tiny.watch.stop=[\"\"]"})),
              HasSubstr("watch.stop: a stop text must not be empty"));
  EXPECT_EQ(refused({"stages.tiny.watch.prompts=[\"" + std::string(64, 'q') + "\"]"}), "");
  EXPECT_THAT(refused({"stages.tiny.watch.prompts=[\"" + std::string(65, 'q') + "\"]"}),
              HasSubstr("a prompt must fit the context of 64 tokens, got 65"));
}

}  // namespace retort::recipes
