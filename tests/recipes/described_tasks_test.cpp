// Every task of shared/data/eval as its description says it: totals, errors and documents as lm-evaluation-harness
// computed them on stories260K.
#include "recipes/task_files.h"

#include <gmock/gmock.h>

#include <cmath>

#include "artifacts/open_model.h"
#include "core/error.h"
#include "eval/python_text.h"
#include "eval/results_json.h"
#include "tests/eval/golden.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

// Of the harness' own results, what each description and run had.
struct GoldenTask {
  const char* file;  // below shared/data/eval/tasks; or a shipped description
  const char* task;  // in results.json
};
constexpr GoldenTask kTasks[] = {
    {"arc_easy.yaml", "arc_easy_local"},
    {"arc_easy_2shot.yaml", "arc_easy_local_2shot"},
    {"blimp_anaphor_number_agreement.yaml", "blimp_anaphor_number_agreement_local"},
    {"blimp_passive_1.yaml", "blimp_passive_1_local"},
    {"boolq_format.yaml", "boolq_format_local"},
    {"gsm8k.yaml", "gsm8k_local"},
    {"hellaswag.yaml", "hellaswag_local"},
    {"lambada_openai.yaml", "lambada_openai_local"},
    {"mmlu_format.yaml", "mmlu_format_local"},
    {"piqa.yaml", "piqa_local"},
    {"source.yaml", "source_local"},
    {"source_3shot.yaml", "source_local_3shot"},
    {"stories.yaml", "stories_local"},
    {"wikitext", "wikitext_local"},  // the harness' Python functions; ours is the shipped description
    {"winogrande.yaml", "winogrande_local"},
    {"winogrande_2shot.yaml", "winogrande_local_2shot"}};

class DescribedTasks : public ::testing::TestWithParam<GoldenTask> {
 protected:
  static void SetUpTestSuite() {
    if (testing::test_data().empty()) return;
    Log quiet(stderr, "", true);
    model_ = new artifacts::OpenedModel(artifacts::open_model(testing::stories_folder(), quiet));
    model_->tokenizer = testing::harness_tokenizer();
    golden_ =
        new formats::Json(formats::read_json(testing::test_data() / "eval" / "results.json").at("tasks"));
  }
  static void TearDownTestSuite() {
    delete model_;
    delete golden_;
  }

  // The golden descriptions, which name the data by @DATA@.
  eval::TaskSpec spec() {
    const Path data = testing::test_data();
    if (!is_task_file(GetParam().file)) {
      eval::TaskSpec shipped = read_task(GetParam().file, "").spec;
      shipped.dataset_kwargs.data_files.test = {(data / "eval/docs/pages.jsonl").string()};
      return shipped;
    }
    for (const auto& file : std::filesystem::directory_iterator(data / "eval" / "tasks")) {
      std::string text = read_text(file.path(), uint64_t{1} << 16);
      for (size_t at; (at = text.find("@DATA@")) != text.npos;) text.replace(at, 6, data.string());
      write_durably(local_files(), directory_ / file.path().filename().string(), text);
    }
    return read_task((directory_ / GetParam().file).string(), "").spec;
  }

  static inline artifacts::OpenedModel* model_ = nullptr;
  static inline formats::Json* golden_ = nullptr;
  testing::TemporaryDirectory directory_;
};

}  // namespace

TEST_P(DescribedTasks, GiveTheHarnessResults) {
  RETORT_NEEDS_TEST_DATA();
  const formats::Json& golden = golden_->at(GetParam().task);
  const auto comm = comm::make_self_comm();
  const eval::TaskResult result = eval::run_task(
      spec(), {.model = *model_->decoder,
               .tokenizer = *model_->tokenizer,
               .comm = *comm,
               .prompts = {.folder = {}, .documents = golden.at("n-samples").at("effective"), .chat = {}},
               .ends = model_->ends(),
               .resamples = golden.at("bootstrap_iters")});
  EXPECT_EQ(result.documents, golden.at("n-samples").at("original").get<int64_t>());
  EXPECT_EQ(result.spec.num_fewshot, golden.at("n-shot").get<int64_t>());

  const formats::Json ours = eval::results_json({result}, {}).at("results").at(result.spec.task);
  for (const auto& [key, value] : golden.at("results").items()) {
    if (key == "name" || key == "alias") continue;
    ASSERT_TRUE(ours.contains(key)) << key;
    if (value.is_string()) {
      EXPECT_EQ(ours.at(key), value) << key;
      continue;
    }
    const bool counted = key.starts_with("acc") || key.starts_with("exact_match") || key == "sample_len";
    const double expected = value.get<double>();
    EXPECT_NEAR(ours.at(key).get<double>(), expected, counted ? 1e-12 : 1e-4 * std::abs(expected)) << key;
  }
  for (const auto& [metric, better] : golden.at("higher_is_better").items())
    for (const eval::MetricResult& one : result.metrics) {
      if (one.metric == metric) {
        EXPECT_EQ(one.higher_is_better, better.get<bool>()) << metric;
      }
    }
}

// Prompts letter for letter, and each document's log-likelihoods, answers and words.
TEST_P(DescribedTasks, AskAndAnswerAsTheHarness) {
  RETORT_NEEDS_TEST_DATA();
  const auto lines = testing::golden_lines(GetParam().task);
  const auto comm = comm::make_self_comm();
  const eval::TaskResult result =
      eval::run_task(spec(), {.model = *model_->decoder,
                              .tokenizer = *model_->tokenizer,
                              .comm = *comm,
                              .prompts = {.folder = {}, .documents = std::ssize(lines), .chat = {}},
                              .ends = model_->ends(),
                              .resamples = 0});
  ASSERT_EQ(result.prompts.size(), lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const formats::Json& line = lines[i];
    const eval::Prompt& prompt = result.prompts[i];
    if (line.contains("response")) {
      EXPECT_EQ(prompt.requests.front().context, line.at("context").get<std::string>());
      EXPECT_EQ(result.generated[i], line.at("response").get<std::string>()) << i;
      for (const auto& [name, answer] : line.at("filters").items())
        EXPECT_EQ(result.filtered.at(name)[i], answer.at("extracted").get<std::string>());
      continue;
    }
    if (line.contains("ll")) {
      double sum = 0;
      for (const eval::LogLikelihood& window : result.answers[i]) sum += window.nats;
      EXPECT_NEAR(sum, line.at("ll").get<double>(), 1e-6 * std::abs(sum) + 1e-3);
      EXPECT_EQ(eval::count_words(prompt.counted), line.at("words").get<int64_t>());
      EXPECT_EQ(std::ssize(prompt.counted), line.at("bytes").get<int64_t>());
      if (line.contains("text")) {
        EXPECT_EQ(prompt.target, line.at("text").get<std::string>());
      }
      continue;
    }
    if (const auto asked = testing::golden_requests(line); !asked.empty()) {
      EXPECT_EQ(prompt.requests, asked) << i;
    }
    for (size_t k = 0; k < result.answers[i].size(); ++k)
      EXPECT_NEAR(result.answers[i][k].nats, line.at("lls")[k].get<double>(), 1e-3) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(All, DescribedTasks, ::testing::ValuesIn(kTasks),
                         [](const auto& one) { return std::string(one.param.task); });

// The shipped descriptions on records in their data sets' own fields.
TEST(ShippedTasks, WriteTheHarnessPrompts) {
  const testing::TemporaryDirectory directory;
  const auto prompt = [&](const char* task, const std::string& record) {
    eval::TaskSpec spec = read_task(task, directory.path().string()).spec;
    spec.num_fewshot = 0;
    for (auto* files : {&spec.dataset_kwargs.data_files.train, &spec.dataset_kwargs.data_files.validation,
                        &spec.dataset_kwargs.data_files.test})
      if (!files->empty()) write_durably(local_files(), directory / files->front(), record + "\n");
    return eval::make_prompts(spec, {.folder = directory.path(), .documents = 0, .chat = {}}).prompts.front();
  };
  using eval::Request;
  using ::testing::ElementsAre;
  EXPECT_THAT(prompt("lambada_openai", R"({"text": "He said no"})").requests,
              ElementsAre(Request{"He said", " no"}));
  const auto hellaswag = prompt(
      "hellaswag",
      R"({"activity_label": "Baking", "ctx_a": "A [header] cook  stirs.", "ctx_b": "then HE", "endings": [" eats [title] now ", "  it's \"hot\""], "label": "1"})");
  EXPECT_THAT(hellaswag.requests, ElementsAre(Request{"Baking: A cook stirs. Then he", " eats. now"},
                                              Request{"Baking: A cook stirs. Then he", " it's \"hot\""}));
  EXPECT_EQ(hellaswag.gold, 1u);
  EXPECT_THAT(prompt("piqa", R"({"goal": "G", "sol1": "A", "sol2": "B", "label": 1})").requests,
              ElementsAre(Request{"Question: G\nAnswer:", " A"}, Request{"Question: G\nAnswer:", " B"}));
  const auto arc =
      prompt("arc_challenge",
             R"({"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"})");
  EXPECT_THAT(arc.requests,
              ElementsAre(Request{"Question: Q\nAnswer:", " x"}, Request{"Question: Q\nAnswer:", " y"}));
  EXPECT_EQ(arc.gold, 1u);
  const auto winogrande = prompt(
      "winogrande", R"({"sentence": "So _ is tall.", "option1": "Al", "option2": "Bo", "answer": "2"})");
  EXPECT_THAT(winogrande.requests, ElementsAre(Request{"So Al", " is tall."}, Request{"So Bo", " is tall."}));
  EXPECT_EQ(winogrande.gold, 1u);
  EXPECT_THAT(prompt("boolq", R"({"passage": "P", "question": "is it", "label": 1})").requests,
              ElementsAre(Request{"P\nQuestion: is it?\nAnswer:", " no"},
                          Request{"P\nQuestion: is it?\nAnswer:", " yes"}));
  EXPECT_THAT(prompt("blimp", R"({"sentence_good": "A.", "sentence_bad": "B."})").requests,
              ElementsAre(Request{"", " A."}, Request{"", " B."}));
  const auto mmlu = prompt(
      "mmlu",
      R"({"question": " Q ", "subject": "high_school_physics", "choices": ["a", "b", "c", "d"], "answer": 2})");
  EXPECT_EQ(mmlu.requests[2],
            (Request{"The following are multiple choice questions (with answers) about high school physics."
                     "\n\nQ\nA. a\nB. b\nC. c\nD. d\nAnswer:",
                     " C"}));
  EXPECT_EQ(mmlu.gold, 2u);
  EXPECT_EQ(prompt("gsm8k", R"({"question": "Q", "answer": "#### 1"})").requests[0].context,
            "Question: Q\nAnswer:");
}

TEST(ShippedTasks, AreReadWithoutAProblem) {
  EXPECT_GE(shipped_tasks().size(), 12u);
  for (const std::string& name : shipped_task_names()) EXPECT_EQ(read_task(name, "").spec.task, name);
}

TEST(TaskFiles, ProblemsSayWhere) {
  const testing::TemporaryDirectory directory;
  const auto refusal = [&](const std::string& text) {
    const std::string file = (directory / "my.yaml").string();
    write_durably(local_files(), file, text);
    try {
      read_task(file, "");
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(refusal("task: a\ndoc_to_texts: b\n"), HasSubstr("my.yaml:2:1"));
  EXPECT_THAT(refusal("include: arc_easy\nmetric_list: [{ metric: accuracy }]\n"),
              HasSubstr("must be one of acc"));
  EXPECT_THAT(refusal("include: arc_easy\nmetric_list: [{ metric: bits_per_byte }]\n"),
              HasSubstr("must fit the output type"));
  EXPECT_THAT(refusal("include: arc_easi\n"), HasSubstr("did you mean \"arc_easy\"?"));
  EXPECT_THAT(refusal("include: my.yaml\n"), HasSubstr("at most 8"));
  EXPECT_THAT(refusal("include: arc_easy\ntest_split: dev\n"),
              HasSubstr("must name files of the split \"dev\""));
  EXPECT_EQ(refusal("include: arc_easy\ntask: mine\n"), "no error");
}

}  // namespace retort::recipes
