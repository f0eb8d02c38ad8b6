// What a run learns of its text, and what of it stays in the model: begin tokens, the padding of a vocabulary, and
// windows without anything to learn.
#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "artifacts/open_model.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/token_decoder.h"
#include "formats/gguf.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHead = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 128, micro_batch: 2 }
model: { vocabulary: 320, context: 64, layers: 1, width: 32, heads: 2, ffn_width: 64, tie_embeddings: true }
train: { steps: 6, precision: fp32, log_every: 1, optimizer: { lr: 4.0e-3 }, schedule: { warmup: 2 } }
)";

class TrainingText : public RecipeRun {
 protected:
  // Bytes, with a token 256 that begins a text.
  std::string beginning_tokenizer() {
    data::BpeSpec spec;
    spec.name = "beginning";
    for (int byte = 0; byte < 256; ++byte)
      spec.tokens.push_back(data::byte_token(static_cast<unsigned char>(byte)));
    spec.tokens.emplace_back("<s>");
    spec.added = {{.id = 256, .text = "<s>", .special = true}};
    spec.begin = 256;
    spec.byte_fallback = true;
    spec.post_processor = formats::Json::parse(
        R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}})");
    const Path directory = directory_ / "tokenizer";
    std::filesystem::create_directories(directory);
    for (const auto& [name, content] : data::make_bpe_tokenizer(spec)->hf_files())
      std::ofstream(directory / name) << content;
    return directory.string();
  }
  artifacts::OpenedModel opened(const std::string& stage) {
    Log quiet(stderr, "", true);
    return artifacts::open_model(in_run(stage), quiet);
  }
};

}  // namespace

// Training, what is generated, and the files that leave agree on whether a text begins with its begin token.
TEST_F(TrainingText, TheBeginTokenIsTheSameEverywhere) {
  for (const bool begin : {true, false}) {
    run(recipe(std::string(kHead) + R"(
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.2, split: "\n" } }
  - { name: model, kind: train }
  - { name: hf, kind: export, model: { from: stage:model }, export: { format: hf, type: f32 } }
)",
               {"stages.text.prepare.tokenizer=" + beginning_tokenizer(),
                fmt::format("stages.text.prepare.begin_token={}", begin)}));
    const data::TokenShards shards(in_run("text/train"));
    std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
    shards.read(0, ids);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 256), begin ? shards.documents() : 0);
    const std::vector<int32_t> prefix = begin ? std::vector<int32_t>{256} : std::vector<int32_t>{};
    EXPECT_EQ(shards.prefix(), prefix);
    EXPECT_EQ(opened("model").need_tokenizer().prefix(), prefix);
    EXPECT_EQ(opened("hf").need_tokenizer().prefix(), prefix);
  }
}

// What is known of the text before the run tells whether a model has a token to begin with.
TEST_F(TrainingText, AnEmptyPromptNeedsABeginToken) {
  std::ofstream(directory_ / "x.jinja") << "{% for m in messages %}{{ m.content }}|{% endfor %}";
  const auto refused = [&](std::vector<std::string> sets) {
    sets.push_back("stages.text.prepare.tokenizer=" + beginning_tokenizer());
    try {
      recipe(std::string(kHead) + R"(
stages:
  - { name: text, kind: prepare }
  - { name: model, kind: train }
  - { name: sample, kind: generate, model: { from: stage:model }, generate: { prompt: [""] } }
)",
             sets);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string rule = "generate.prompt: \"\": a prompt must have at least one token";
  EXPECT_EQ(refused({}), "");
  EXPECT_THAT(refused({"stages.text.prepare.begin_token=false"}), HasSubstr(rule));
  EXPECT_THAT(refused({"stages.text.prepare.messages=m",
                       "stages.text.prepare.chat_template=" + (directory_ / "x.jinja").string()}),
              HasSubstr(rule))
      << "a template of a model's own that prints no begin token";
}

// Whatever ids it comes to have.
TEST_F(TrainingText, ATokenizerOfTheRunBeginsNoPrompt) {
  const auto told = [&](const std::string& prompt) {
    try {
      recipe(std::string(kHead) + R"(
stages:
  - { name: words, kind: tokenizer, tokenizer: { vocabulary: 300 } }
  - { name: text, kind: prepare, prepare: { tokenizer: stage:words } }
  - { name: model, kind: train }
  - { name: grid, kind: quantize, model: { from: stage:model }, quantize: { weights: { grid: q8_0 } } }
  - { name: sample, kind: generate, model: { from: stage:grid } }
)",
             {"stages.sample.generate.prompt=[verse, " + prompt + "]"});
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(told("line"), "");
  EXPECT_THAT(told("\"\""), HasSubstr("generate.prompt: \"\": a prompt must have at least one token, and a "
                                      "tokenizer that a stage makes begins a text with none"));
}

// A student that is padded otherwise than its teacher, taught by a loss that says nothing of padding.
TEST_F(TrainingText, PaddingTakesNoProbability) {
  const std::string said = run(recipe(std::string(kHead) + R"(
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.2 } }
  - { name: teacher, kind: train, model: { vocabulary: 256 } }
  - { name: student, kind: train, distill: { teacher: { model: stage:teacher }, losses: [ { fn: forward_kl } ] } }
  - { name: labels, kind: capture, model: { from: stage:student }, capture: { kind: top_k, k: 8 } }
  - name: sample
    kind: generate
    model: { from: stage:student }
    generate: { prompt: "verse", tokens: 59, temperature: 20.0 }
  - { name: hf, kind: export, model: { from: stage:student }, export: { format: hf, type: f32, evaluate: true } }
)"));
  const artifacts::OpenedModel student = opened("student");
  EXPECT_EQ(student.decoder->vocabulary(), 320);
  EXPECT_EQ(student.decoder->tokens(), 256);
  EXPECT_EQ(opened("hf").decoder->vocabulary(), 256);
  EXPECT_NEAR(figure("hf", "bits_per_byte"), figure("student", "bits_per_byte"), 1e-9);
}

// Long prompts, of which a window seldom reaches the answer.
TEST_F(TrainingText, StepsWithoutLabelsAreSaidAndMeasureNothing) {
  std::ofstream records(directory_ / "a.jsonl");
  for (int i = 0; i < 30; ++i)
    records << R"({"p": ")" << std::string(600, static_cast<char>('a' + i % 26)) << R"(", "r": "yes"})"
            << "\n";
  records.close();
  const std::string said = run(recipe(std::string(kHead) + R"(
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.2, prompt: [p], response: r } }
  - { name: model, kind: train, train: { steps: 20 } }
)",
                                      {"stages.text.prepare.text=" + (directory_ / "a.jsonl").string()}));
  int64_t without = 0;
  std::istringstream lines(read_text(in_run("model/metrics.jsonl")));
  for (std::string text; std::getline(lines, text);) {
    const formats::Json line = formats::parse_json(text, "metrics");
    if (!line.contains("labels")) continue;
    EXPECT_EQ(line.contains("loss"), line.at("labels") != 0) << text;
    without += line.at("labels") == 0;
  }
  EXPECT_GT(without, 3);
  EXPECT_LT(without, 20);
  EXPECT_EQ(figure("model", "steps_without_labels"), static_cast<double>(without));
  EXPECT_THAT(said,
              HasSubstr(fmt::format("{} of 20 steps ({:.0f} %) had no labels", without, 5.0 * without)));
}

}  // namespace retort::recipes
