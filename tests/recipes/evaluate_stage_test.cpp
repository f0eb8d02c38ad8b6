#include "recipes/stages/evaluate.h"

#include "models/family.h"
#include "recipes/run_alone.h"
#include "recipes/stages/described_tasks.h"
#include "recipes/stages/second_model.h"
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
  - { name: scores, kind: evaluate, model: { from: stage:model } }
  - { name: random, kind: evaluate, model: { from: "preset:stlm-10m" }, evaluate: { limit: 64 } }
)";

using EvaluateStage = RecipeRun;

}  // namespace

// The figures are those that training ends with, bit for bit, and have errors beside them.
TEST_F(EvaluateStage, MeasuresWhatTrainingMeasured) {
  const std::string said = run(recipe(kRecipe), {.only = "evaluate"});
  EXPECT_THAT(said, HasSubstr("| bits_per_byte"));
  EXPECT_EQ(figure("scores", "bits_per_byte"), figure("model", "bits_per_byte"));
  EXPECT_EQ(figure("scores", "perplexity"), figure("model", "perplexity"));
  EXPECT_GT(figure("scores", "bits_per_byte_error"), 0.0);
  EXPECT_LT(figure("scores", "bits_per_byte_error"), figure("scores", "bits_per_byte"));
  EXPECT_EQ(figure("scores", "window"), 16);
  EXPECT_GT(figure("random", "bits_per_byte"), 7.0) << "random weights know nothing";
}

TEST_F(EvaluateStage, ChecksItsTasksAndItsText) {
  const auto refused = [&](const std::string& set) { return refusal_of(kRecipe, {set}); };
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[perplexty]"), HasSubstr("did you mean \"perplexity\"?"));
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[]"), HasSubstr("must name at least one task"));
  EXPECT_THAT(refused("stages.scores.data.validation=\"\""), HasSubstr("must name a text for these tasks"));
  EXPECT_THAT(refused("stages.scores.evaluate.text=/nowhere.txt"), HasSubstr("/nowhere.txt"));
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[arc_easy, arc_easy]"),
              HasSubstr("arc_easy and arc_easy are both the task arc_easy"));
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[perplexity, bits_per_byte, perplexity]"),
              HasSubstr("nats_per_token must come from one task, named once"));
  EXPECT_THAT(refused("stages.scores.evaluate.max_length=33"),
              HasSubstr("must be at most the model's context, 32, got 33"));
  EXPECT_THAT(refused("stages.scores.evaluate.chat=nonsense"), HasSubstr("nonsense"));
  EXPECT_EQ(refused("stages.scores.evaluate.chat=chatml"), "");
}

TEST_F(EvaluateStage, ChecksThatTextAndTasksHaveATokenizer) {
  const auto refused = [&](const std::vector<std::string>& sets) { return refusal_of(kRecipe, sets); };
  const std::string from = "stages.scores.model.from=preset:gpt2-124m",
                    text = "stages.scores.evaluate.text=" + (directory_ / "a.txt").string(),
                    none =
                        ": needs a model with a tokenizer, and preset:gpt2-124m has none that is supported";
  EXPECT_EQ(refused({from}), "") << "token shards need none";
  EXPECT_EQ(refused({text}), "");
  EXPECT_THAT(refused({from, text}), HasSubstr("evaluate.text" + none));
  EXPECT_THAT(refused({text, "stages.scores.evaluate.against=preset:gpt2-124m"}),
              HasSubstr("evaluate.text" + none));
  EXPECT_THAT(refused({from, "stages.scores.evaluate.tasks=[hellaswag]"}),
              HasSubstr("evaluate.tasks" + none));
}

TEST_F(EvaluateStage, ChecksThatAModelHasATemplateOfItsOwn) {
  models::DecoderSpec spec = models::families().at("llama").defaults;
  spec.vocabulary = 256;
  spec.context = 64;
  spec.layers = 1;
  spec.width = spec.ffn_width = 32;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 16;
  artifacts::ExportOptions plain;
  plain.format = "hf";
  plain.type = "f32";
  const Path folder = directory_ / "hf";
  artifacts::export_model(artifacts::new_model(spec, 1, "new"), plain, folder, local_files());
  // What is told of stages.scores, which lacks the task's file anyway.
  const auto told = [&](const std::string& key, const std::string& chat) {
    try {
      recipe(kRecipe, {key + folder.string(), "stages.scores.evaluate.tasks=[hellaswag]",
                       "stages.scores.evaluate.chat=" + chat});
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string rule = "evaluate.chat: model: " + folder.string() + ": holds no chat template; name ";
  for (const char* key : {"stages.scores.model.from=", "stages.scores.evaluate.against="}) {
    EXPECT_THAT(told(key, "model"), HasSubstr(rule)) << key;
    EXPECT_THAT(told(key, "chatml"), ::testing::Not(HasSubstr("evaluate.chat"))) << key;
  }
  std::ofstream(folder / "chat_template.jinja") << "{{ messages[0].content }}";
  EXPECT_THAT(told("stages.scores.model.from=", "model"), ::testing::Not(HasSubstr("evaluate.chat")));
}

// Before anything is trained.
TEST_F(EvaluateStage, ChecksTheTokensOfARound) {
  const std::vector<std::string> sets = {"stages.scores.evaluate.drafter=stage:model",
                                         "stages.scores.evaluate.drafted=17"};
  EXPECT_THROW(recipe(kRecipe, sets), ConfigError);
  EXPECT_NO_THROW(recipe(kRecipe, {sets[0], "stages.scores.evaluate.drafted=16"}));
}

// A verb's stage: no run, and figures to whoever asks.
TEST_F(EvaluateStage, RunsAlone) {
  run(recipe(kRecipe), {.only = "train"});
  Stage stage("evaluate", "evaluate");
  stage.get<ModelOptions>().from = in_run("model").string();
  stage.get<EvaluateOptions>().text = (directory_ / "a.txt").string();
  stage.get<DataOptions>().sequence = 16;
  std::string printed;
  AloneOptions options;
  options.name_of = [](const std::string& key) { return "--" + key; };
  options.print = [&](std::string_view text) {
    printed += text;
    return true;
  };
  Log quiet(stderr, "", true);
  const formats::Json figures = run_alone(stage, options, local_files(), quiet);
  EXPECT_GT(figures.at("bits_per_byte").get<double>(), 0.0);
  EXPECT_THAT(printed, HasSubstr("| perplexity"));
  stage.get<ModelOptions>().from.clear();
  try {
    run_alone(stage, options, local_files(), quiet);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--model.from: a stage of kind evaluate needs a MODEL"));
  }
}

// A drafter is measured when it is named, and must have the model's vocabulary.
TEST_F(EvaluateStage, MeasuresADrafter) {
  std::string yaml = kRecipe;
  yaml.insert(yaml.find("  - { name: scores"),
              "  - { name: words, kind: tokenizer, tokenizer: { vocabulary: 300 } }\n"
              "  - { name: tokens, kind: prepare, prepare: { tokenizer: stage:words } }\n"
              "  - { name: other, kind: train, model: { vocabulary: 300 }, data: { train: stage:tokens, "
              "validation: stage:tokens } }\n"
              "  - { name: small, kind: train, model: { width: 16, ffn_width: 16 } }\n");
  const std::string drafter = "stages.scores.evaluate.drafter=", tasks = "stages.scores.evaluate.tasks=";
  const std::string said =
      run(recipe(yaml, {drafter + "stage:small", tasks + "[perplexity]", "stages.scores.evaluate.drafted=3"}),
          {.only = "evaluate"});
  EXPECT_THAT(said, HasSubstr("| tokens_per_round "));
  EXPECT_GT(figure("scores", "acceptance"), 0.5) << "neither knows much after two steps";
  EXPECT_LT(figure("scores", "acceptance"), 1.0);
  EXPECT_GT(figure("scores", "acceptance_error"), 0.0);
  EXPECT_GT(figure("scores", "tokens_per_round"), 1.0);
  EXPECT_LT(figure("scores", "tokens_per_round"), 4.0);
  EXPECT_THAT(error_of(recipe(yaml, {drafter + "stage:other"})),
              ::testing::AllOf(HasSubstr("evaluate.drafter: "),
                               HasSubstr("run/other/checkpoints/step_00000002 must have the vocabulary of"),
                               HasSubstr("the drafter has 294 tokens, the model 256")));
  EXPECT_THROW(recipe(yaml, {tasks + "[drafting]"}), ConfigError);  // of which drafter
  // What is known of both before a run is told then.
  const auto refused = [&](const std::vector<std::string>& sets) { return refusal_of(yaml, sets); };
  EXPECT_THAT(
      refused({drafter + "stage:other", "stages.tokens.prepare.tokenizer=" + in_run("words").string()}),
      HasSubstr("must have the model's vocabulary, for a token to mean the same: "));
  EXPECT_THAT(
      refused({drafter + "stage:small", "stages.small.model.context=16", "stages.scores.data.sequence=20"}),
      HasSubstr("must be at most the drafter's context, 16, got 20"));
}

TEST(SecondModel, AVocabularyFitsItself) {
  const auto bytes = data::make_byte_tokenizer();
  EXPECT_EQ(vocabulary_misfit("reference", *bytes, *bytes), "");
}

// How far a model has come from the one that it was made from.
TEST_F(EvaluateStage, MeasuresTheDistanceFromAReference) {
  std::string yaml = kRecipe;
  yaml.insert(yaml.find("  - { name: scores"),
              "  - { name: small, kind: train, model: { width: 16, ffn_width: 16 } }\n");
  const std::string reference = "stages.scores.evaluate.reference=", tasks = "stages.scores.evaluate.tasks=";
  run(recipe(yaml, {reference + "stage:small", tasks + "[perplexity]"}), {.only = "evaluate"});
  EXPECT_GT(figure("scores", "kl"), 0.0);
  EXPECT_GT(figure("scores", "kl_error"), 0.0);
  EXPECT_LT(figure("scores", "agreement"), 1.0);
  EXPECT_FALSE(formats::read_json(in_run("scores") / "result.json").contains("acceptance"));
  EXPECT_THROW(recipe(yaml, {tasks + "[divergence]"}), ConfigError);  // from what
  EXPECT_THROW(recipe(yaml, {reference + "stage:small", "stages.small.model.context=16",
                             "stages.scores.data.sequence=20"}),
               ConfigError);
}
TEST_F(EvaluateStage, IsAtNoDistanceFromItself) {
  run(recipe(kRecipe, {"stages.scores.evaluate.reference=stage:model"}));
  EXPECT_EQ(figure("scores", "kl"), 0.0);
  EXPECT_EQ(figure("scores", "agreement"), 1.0);
}

// A user's own labels, two models, and files in the harness' layout.
TEST_F(EvaluateStage, ComparesTwoModelsOnADescribedTask) {
  write_durably(local_files(), directory_ / "labels.csv", "text,label\nfine,good\nbad,poor\nlovely,good\n");
  write_durably(local_files(), directory_ / "mine.yaml",
                "include: classification\ntask: mine\ndoc_to_choice: [poor, good]\n"
                "dataset_kwargs: { data_files: { test: labels.csv } }\n");
  const std::string task = (directory_ / "mine.yaml").string();
  std::string yaml = kRecipe;
  yaml.insert(yaml.find("  - { name: scores"), "  - { name: other, kind: train, train: { steps: 1 } }\n");
  const Recipe both = recipe(yaml, {"stages.scores.evaluate.tasks=[bits_per_byte, " + task + "]",
                                    "stages.scores.evaluate.against=stage:other"});
  EXPECT_THAT(run(both, {.only = "evaluate"}), HasSubstr("McNemar"));
  EXPECT_GE(figure("scores", "mine.acc"), 0.0);
  EXPECT_GT(figure("scores", "mine.acc_error"), 0.0);
  EXPECT_GT(figure("scores", "against.bits_per_byte"), figure("scores", "bits_per_byte"));
  const formats::Json result = formats::read_json(in_run("scores") / "result.json");
  EXPECT_EQ(result.at("difference.mine.acc").at("test"), "McNemar");
  size_t results = 0, samples = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(in_run("scores"))) {
    results += file.path().filename() == "results.json";
    samples += file.path().filename() == "samples_mine.jsonl";
  }
  EXPECT_EQ(results, 2u) << "one of each model";
  EXPECT_EQ(samples, 2u);
}

TEST(DescribedFigures, AreNamedByTaskMetricAndFilter) {
  EXPECT_EQ(figure_name("t", {.metric = "acc", .scores = {}}), "t.acc");
  EXPECT_EQ(figure_name("t", {.metric = "exact_match", .filter = "strict-match", .scores = {}}),
            "t.exact_match.strict-match");
  const std::vector<std::string> all = shipped_figures();
  for (const char* name :
       {"gsm8k.exact_match.flexible-extract", "hellaswag.acc_norm", "wikitext.word_perplexity"})
    EXPECT_TRUE(std::count(all.begin(), all.end(), name)) << name;
}

// A prompt becomes the user's message of a conversation, and the assistant's answer is what is scored.
TEST_F(EvaluateStage, AsksThroughAChatTemplate) {
  write_durably(local_files(), directory_ / "labels.csv", "text,label\nfine,positive\n");
  write_durably(local_files(), directory_ / "mine.yaml",
                "include: classification\ntask: mine\ndescription: Judge.\n"
                "dataset_kwargs: { data_files: { test: labels.csv } }\n");
  run(recipe(kRecipe, {"stages.scores.evaluate.tasks=[" + (directory_ / "mine.yaml").string() + "]",
                       "stages.scores.evaluate.chat=chatml"}),
      {.only = "evaluate"});
  std::string samples;
  for (const auto& file : std::filesystem::recursive_directory_iterator(in_run("scores")))
    if (file.path().filename() == "samples_mine.jsonl") samples = read_text(file.path(), uint64_t{1} << 20);
  const formats::Json asked = formats::parse_json(samples, "samples").at("arguments").at("gen_args_1");
  EXPECT_EQ(asked.at("arg_0"),
            "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\nfine\nSentiment:<|im_end|>\n<|im_start|>"
            "assistant\n");
  EXPECT_EQ(asked.at("arg_1"), "positive");
}

TEST_F(EvaluateStage, ATemplateBelongsToItsIdentity) {
  const std::string form = (directory_ / "form.jinja").string();
  const auto scored_again = [&](const std::string& text) {
    write_durably(local_files(), form, text);
    const std::string said =
        run(recipe(kRecipe, {"stages.scores.evaluate.chat=" + form}), {.only = "evaluate"});
    return said.find("scores (evaluate): done already") == said.npos;
  };
  EXPECT_TRUE(scored_again("{{ messages[0].content }}"));
  EXPECT_FALSE(scored_again("{{ messages[0].content }}"));
  EXPECT_TRUE(scored_again("{{ messages[0].content }}:"));
}

// What a description names belongs to the stage's identity, and must be there.
TEST_F(EvaluateStage, ReadsTheFilesOfDescriptions) {
  write_durably(
      local_files(), directory_ / "mine.yaml",
      "include: classification\ntask: mine\ndataset_kwargs: { data_files: { test: labels.csv } }\n");
  const std::string task = (directory_ / "mine.yaml").string();
  const auto refused = [&](const std::string& set) { return refusal_of(kRecipe, {set}); };
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[" + task + "]"), HasSubstr("labels.csv"));
  EXPECT_THAT(refused("stages.scores.evaluate.tasks=[/nowhere.yaml]"), HasSubstr("/nowhere.yaml"));
  write_durably(local_files(), directory_ / "labels.csv", "text,label\nfine,positive\n");
  EXPECT_EQ(refused("stages.scores.evaluate.tasks=[" + task + "]"), "");
}

}  // namespace retort::recipes
