#include "recipes/stages/initial_model.h"

#include "models/hf_folder.h"
#include "models/peft_folder.h"
#include "recipes/model_address.h"
#include "recipes/model_options.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

// Students see one step at a rate that moves nothing, so their figures are those of the weights they began
// with.
constexpr const char* kRecipe = R"(
run: { seed: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 8 }
model: { context: 32, layers: 3, width: 32, heads: 4, kv_heads: 2, ffn_width: 64 }
train: { steps: 1, precision: fp32, optimizer: { lr: 1.0e-9 }, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, train: { steps: 80, optimizer: { lr: 1.0e-2 } } }
  - { name: same, kind: train, model: { init: { from: stage:teacher, samples: 10 } } }
  - name: small
    kind: train
    model: { layers: 2, width: 24, ffn_width: 48, head_dim: 8, heads: 2, kv_heads: 1, init: {} }
    distill: { teacher: { model: stage:teacher }, losses: [ { fn: forward_kl } ] }
  - { name: blind, kind: train, model: { layers: 2, width: 24, ffn_width: 48, head_dim: 8, heads: 2, kv_heads: 1 } }
  - { name: shared, kind: train, model: { share: { ffn: all, lora_rank: 32 }, init: { from: stage:teacher } } }
  - { name: file, kind: export, model: { from: stage:shared }, export: { evaluate: true } }
)";

class InitialModel : public RecipeRun {
 protected:
  Recipe recipe(const std::vector<std::string>& sets = {}) const { return RecipeRun::recipe(kRecipe, sets); }
  double bits_per_byte(const std::string& stage) const { return figure(stage, "bits_per_byte"); }
};

}  // namespace

TEST_F(InitialModel, StudentsBeginWhereTheirTeacherIs) {
  const std::string said = run(recipe());
  ASSERT_EQ(code_, ExitCode::kDone);
  const double taught = bits_per_byte("teacher"), blind = bits_per_byte("blind");
  EXPECT_LT(taught, 0.6 * blind);
  EXPECT_NEAR(bits_per_byte("same"), taught, 1e-4);
  EXPECT_LT(bits_per_byte("small"), 0.9 * blind);
  EXPECT_NEAR(bits_per_byte("shared"), taught, 1e-3);  // adapters of full rank hold what sharing loses
  EXPECT_NEAR(bits_per_byte("file"), bits_per_byte("shared"), 1e-4);
  EXPECT_THAT(said, ::testing::HasSubstr("starts from layers 1, 2 of stage:teacher"));
  // What it took to get there: the teacher's tokens too.
  EXPECT_EQ(read_result(directory_ / "run", "same")->at("tokens"), 81 * 256);
}

TEST_F(InitialModel, IsDividedFromTheStartButForACutOneAndAFolderOfPeft) {
  const Recipe r = recipe();
  const auto stage = [&](const char* name) { return *std::ranges::find(r.stages, name, &Stage::name); };
  EXPECT_TRUE(starts_divided(stage("teacher")));
  EXPECT_FALSE(starts_divided(stage("same")));
  write_durably(local_files(), directory_ / models::kPeftConfig, "{}\n");
  Stage tuned = stage("teacher");
  tuned.get<ModelOptions>().from = directory_.path().string();
  EXPECT_FALSE(starts_divided(tuned));
}

// What is fine-tuned still ends its turns with the tokens that its own files name.
TEST_F(InitialModel, TrainingAModelOfAFileKeepsItsEnds) {
  models::DecoderSpec spec;
  spec.layers = 1;
  spec.width = 32;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 16;
  spec.ffn_width = 32;
  spec.context = 32;
  models::Decoder model(spec);
  models::initialise(model.parameters(), "normal", 0.1, 1);
  models::IdentityMap identity;
  models::HfExtras extras;
  extras.generation = {{"eos_token_id", {3, 5}}, {"top_k", 64}};
  models::save_hf_folder(local_files(), directory_ / "hf", model, identity, at::kFloat, extras);
  run(RecipeRun::recipe(fmt::format(R"(
run: {{ seed: 1 }}
data: {{ train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 8 }}
train: {{ steps: 1, precision: fp32, schedule: {{ kind: constant, warmup: 0 }} }}
stages:
  - {{ name: text, kind: prepare }}
  - {{ name: tuned, kind: train, model: {{ from: {}/hf }} }}
)",
                                    directory_.path().string())));
  Log quiet(stderr, "", true);
  const artifacts::OpenedModel tuned = open_model(in_run("tuned").string(), "", 0, quiet);
  EXPECT_EQ(tuned.ends(), (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(tuned.generation, extras.generation);
}

TEST_F(InitialModel, AnotherTeacherMakesTheStudentAnew) {
  const Recipe one = recipe(), other = recipe({"stages.teacher.train.steps=2"});
  const auto student = [](const Recipe& r) { return *r.find("same"); };
  EXPECT_THAT(stages_before(one, student(one)), ::testing::Contains("teacher"));
  EXPECT_THAT(stages_before(one, *one.find("small")), ::testing::Contains("teacher"));
  EXPECT_NE(stage_identity(one, *one.find("same")), stage_identity(one, *one.find("blind")));
}

}  // namespace retort::recipes
