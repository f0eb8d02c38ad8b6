// A byte-patch model is trained, stopped, continued, spread over ranks, scored and sampled like any other;
// only other software's files are refused, and quantization that goes layer by layer.
#include "artifacts/copy_model.h"
#include "artifacts/export_model.h"
#include "formats/json.h"
#include "recipes/model_address.h"
#include "recipes/stages/judge.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1 }
data: { train: stage:text, validation: stage:text, sequence: 24, batch_tokens: 96, micro_batch: 1 }
model: { family: FAMILY, vocabulary: VOCABULARY, context: 48, layers: 1, width: 32, heads: 2, ffn_width: 32, patch: PATCH }
train: { steps: 4, precision: fp32, schedule: { kind: constant, warmup: 0 }, checkpoint_every: 2 }
stages:
  - { name: text, kind: prepare, prepare: { tokenizer: TOKENIZER } }
  - { name: model, kind: train }
  - { name: sample, kind: generate, model: { from: stage:model }, generate: { prompt: "line 1", tokens: 8 } }
)";

struct Arm {
  std::string family, vocabulary, patch, tokenizer;
};

class PatchModels : public RecipeRun, public ::testing::WithParamInterface<Arm> {
 protected:
  Recipe recipe(const std::vector<std::string>& sets = {}) const {
    std::string text = kRecipe;
    const auto put = [&](const std::string& mark, const std::string& value) {
      text.replace(text.find(mark), mark.size(), value);
    };
    put("FAMILY", GetParam().family);
    put("VOCABULARY", GetParam().vocabulary);
    put("PATCH", GetParam().patch);
    put("TOKENIZER", GetParam().tokenizer);
    return RecipeRun::recipe(text, sets);
  }
  Path checkpoint(int step) const { return in_run(fmt::format("model/checkpoints/step_{:08}", step)); }
};

TEST_P(PatchModels, RanksAndAStopChangeNoBit) {
  EXPECT_THAT(run(recipe()), HasSubstr("line 1"));
  const formats::Json result = formats::read_json(in_run("model/result.json"));
  EXPECT_GT(result.at("bits_per_byte").get<double>(), 0.0);
  const std::string whole = read_text(checkpoint(4) / "manifest.json");
  const Path half = directory_ / "half";
  std::filesystem::copy(checkpoint(2), half);

  run(recipe(), {.start_over = true, .resume_from = half});
  EXPECT_EQ(read_text(checkpoint(4) / "manifest.json"), whole);
  run(recipe({"parallel.ranks=4"}), {.start_over = true});
  EXPECT_EQ(read_text(checkpoint(4) / "manifest.json"), whole);
}

TEST_P(PatchModels, OpensFromItsCheckpointAndStaysThere) {
  run(recipe());
  Log quiet(stderr, "", true);
  const artifacts::OpenedModel model = open_model(checkpoint(4).string(), "", 0, quiet);
  EXPECT_TRUE(model.decoder->spec() == recipe().stages[1].get<ModelOptions>().spec());
  EXPECT_EQ(model.need_tokenizer().name(), GetParam().tokenizer);
  for (const char* format : {"gguf", "hf"}) {
    artifacts::ExportOptions options;
    options.format = format;
    try {
      export_model(model, options, directory_ / "out", local_files());
      FAIL() << format;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("a " + GetParam().family + " model cannot be written as a"));
    }
  }
}

// Rounding needs no layers, and a checkpoint holds any model.
TEST_P(PatchModels, IsRoundedToGridsIntoACheckpoint) {
  run(recipe());
  Log quiet(stderr, "", true);
  artifacts::OpenedModel model = open_model(checkpoint(4).string(), "", 0, quiet);
  quantize::QuantizeOptions grids;
  grids.weights.grid = "fp8";
  grids.embedding.grid = grids.head.grid = "none";
  const auto comm = comm::make_self_comm();
  PostTrainingJob job{grids, {}, nullptr, 24};
  job.method.method = "gptq";
  EXPECT_THAT([&] { put_on_grids(*model.decoder, job, *comm, quiet); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("method gptq goes layer by layer, and a " +
                                                              GetParam().family + " model is no stack")));
  job.method.method = "rtn";
  const auto before = artifacts::copy_of(*model.decoder);
  model.grids = put_on_grids(*model.decoder, job, *comm, quiet);
  artifacts::export_model(model, {.format = "checkpoint"}, directory_ / "rounded", local_files());
  const artifacts::OpenedModel back = open_model((directory_ / "rounded").string(), "", 0, quiet);
  EXPECT_EQ(back.need_tokenizer().name(), GetParam().tokenizer);
  int rounded = 0;
  for (const models::Parameter& p : back.decoder->parameters().unique()) {
    EXPECT_TRUE(testing::same_bits(p.master, model.decoder->parameters().at(p.name).master)) << p.name;
    rounded += at::equal(p.master, before->parameters().at(p.name).master) ? 0 : 1;
  }
  EXPECT_GT(rounded, 5);
}

INSTANTIATE_TEST_SUITE_P(
    Families, PatchModels,
    ::testing::Values(
        Arm{"spacebyte", "256", "{ width: 16, layers: 2, heads: 2, ffn_width: 32, window: 8 }", "bytes"},
        Arm{"stlm", "256", "{ width: 16, layers: 1, heads: 2, ffn_width: 32, longest: 6 }", "bytes"},
        Arm{"stlm", "257", "{ width: 16, layers: 1, heads: 2, ffn_width: 32, longest: 6, head: parallel }",
            "bytes+stop"}),
    [](const auto& info) { return info.param.family + info.param.vocabulary; });

}  // namespace
}  // namespace retort::recipes
