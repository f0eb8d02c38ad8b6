// Stages with adapters: what they train, keep, continue and leave, and what goes with them.
#include "artifacts/model_shape.h"
#include "core/digest.h"
#include "formats/safetensors.h"
#include "models/frozen_codes.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 2 }
model: { context: 32, layers: 2, width: 32, heads: 4, kv_heads: 2, ffn_width: 64 }
train:
  { steps: 20, precision: fp32, checkpoint_every: 10, optimizer: { lr: 1.0e-2, lora_plus: 4 }, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: base, kind: train }
  - { name: tuned, kind: train, model: { from: stage:base }, adapters: { modules: [q_proj, down_proj], rank: 4, dora: true } }
)";
constexpr const char* kRest =
    R"(  - { name: more, kind: train, model: { from: stage:tuned }, adapters: { modules: [q_proj, down_proj], rank: 4, dora: true } }
  - { name: whole, kind: train, model: { from: stage:tuned }, train: { steps: 1, optimizer: { lr: 1.0e-9 } } }
  - { name: gguf, kind: export, model: { from: stage:tuned }, export: { evaluate: true } }
  - { name: hf, kind: export, model: { from: stage:tuned }, export: { format: hf, evaluate: true } }
  - { name: checkpoint, kind: export, model: { from: stage:tuned }, export: { format: checkpoint, evaluate: true } }
  - { name: four, kind: quantize, model: { from: stage:tuned }, quantize: { weights: { grid: q4_0 } } }
  - { name: peft, kind: export, model: { from: stage:tuned }, export: { format: peft, evaluate: true } }
)";

class AdapterStages : public RecipeRun {
 protected:
  Recipe recipe(const std::vector<std::string>& sets = {}) const { return RecipeRun::recipe(kRecipe, sets); }
  Recipe all(const std::vector<std::string>& sets = {}) const {
    return RecipeRun::recipe(std::string(kRecipe) + kRest, sets);
  }
  Path newest(const std::string& stage, const std::string& run = "run") const {
    return train::list_checkpoints(directory_ / run / stage / "checkpoints").front();
  }
  // All of a checkpoint, as one number.
  std::string bits(const std::string& stage, const std::string& run = "run") const {
    std::string all;
    for (const char* file : {"weights.safetensors", "optimizer.safetensors"})
      all += read_text(newest(stage, run) / file);
    return hex(xxh3(all)) +
           formats::read_json(newest(stage, run) / "manifest.json").at("manifest").at("extra").dump();
  }
};

}  // namespace

TEST_F(AdapterStages, TrainTheAdaptersAndLeaveMerged) {
  run(all());
  ASSERT_EQ(code_, ExitCode::kDone);
  const double tuned = figure("tuned", "bits_per_byte");
  EXPECT_LT(tuned, figure("base", "bits_per_byte") - 0.01);
  EXPECT_LT(figure("more", "bits_per_byte"), tuned);
  for (const char* stage : {"whole", "gguf", "hf", "checkpoint", "peft"})
    EXPECT_NEAR(figure(stage, "bits_per_byte"), tuned, 1e-4) << stage;

  EXPECT_NEAR(figure("four", "bits_per_byte"), tuned, 0.2);
  EXPECT_NE(artifacts::model_tokenizer(in_run("peft")), nullptr);
  EXPECT_EQ(artifacts::model_shape(in_run("peft"))->width, 32);

  const formats::SafetensorsFile weights(newest("tuned") / "weights.safetensors");
  EXPECT_EQ(weights.entries().size(), 2u * 2 * 3);  // two modules of two layers: A, B and lengths
  for (const auto& [name, entry] : weights.entries()) EXPECT_THAT(name, HasSubstr(".lora_"));
  EXPECT_EQ(formats::SafetensorsFile(newest("tuned") / "optimizer.safetensors").entries().size(),
            2 * 12u + 1);
  EXPECT_TRUE(std::filesystem::exists(in_run("peft/adapter_config.json")));
}

// The same bytes in another directory, on ranks, and after a stop: a checkpoint names its base from where
// it is.
TEST_F(AdapterStages, GiveTheSameBitsOnRanksAndContinued) {
  run(recipe());
  const std::string whole = bits("tuned");
  run(recipe({"run.dir=" + (directory_ / "other").string(), "parallel.ranks=4"}));
  EXPECT_EQ(weights_digest("tuned", "other"), weights_digest("tuned"));

  std::filesystem::remove_all(newest("tuned"));
  std::filesystem::remove(in_run("tuned/result.json"));
  ASSERT_EQ(newest("tuned").filename(), "step_00000010");
  run(recipe());
  EXPECT_EQ(bits("tuned"), whole);
}

// What is written is the merge into the rounded base, whatever that is kept as.
TEST_F(AdapterStages, LeaveMergedFromEveryFormOfTheBase) {
  const std::string exported =
      std::string(kRecipe) +
      R"(  - { name: gguf, kind: export, model: { from: stage:tuned }, export: { evaluate: true } }
)";
  for (const std::string& form : models::frozen_code_names()) {
    run(RecipeRun::recipe(exported, {"stages.tuned.adapters.base=" + form}));
    ASSERT_EQ(code_, ExitCode::kDone) << form;
    EXPECT_NEAR(figure("gguf", "bits_per_byte"), figure("tuned", "bits_per_byte"), 1e-4) << form;
    EXPECT_LT(figure("tuned", "bits_per_byte"), figure("base", "bits_per_byte")) << form;
    EXPECT_EQ(formats::SafetensorsFile(newest("tuned") / "weights.safetensors").entries().size(), 12u)
        << form;
  }
}

// Of a teacher, on packed documents and over codes: the same bits on ranks, which may divide moments or all.
TEST_F(AdapterStages, GoWithATeacherPackingAndCodes) {
  const std::string teacher = R"(  - { name: teacher, kind: train, model: { width: 64, ffn_width: 128 } }
)";
  const auto packed = [&](int ranks) {
    std::string text = kRecipe;
    text.insert(text.find("  - { name: tuned"), teacher);
    return RecipeRun::recipe(
        text, {"stages.text.prepare.split=\"\\n\"", "stages.tuned.data.packing=best_fit",
               "stages.tuned.adapters.base=nf4", "stages.tuned.distill.teacher.model=stage:teacher",
               "stages.tuned.distill.losses=[{fn: forward_kl}]", fmt::format("parallel.ranks={}", ranks),
               fmt::format("parallel.shard={}", ranks == 4   ? "parameters"
                                                : ranks == 2 ? "optimizer"
                                                             : "none"),
               "run.dir=" + (directory_ / std::to_string(ranks)).string()});
  };
  for (const int ranks : {1, 2, 4}) {
    EXPECT_THAT(run(packed(ranks)), HasSubstr("filled"));
    ASSERT_EQ(code_, ExitCode::kDone) << ranks;
    EXPECT_EQ(weights_digest("tuned", std::to_string(ranks)), weights_digest("tuned", "1")) << ranks;
  }
  const formats::SafetensorsFile weights(newest("tuned", "1") / "weights.safetensors");
  EXPECT_GT(weights.tensor("layers.0.attn.q.lora_b.weight").abs().max().item<float>(), 0.0f);
}

TEST_F(AdapterStages, KnowTheirBase) {
  run(recipe());
  std::filesystem::rename(in_run("base"), in_run("moved"));
  Log quiet(stderr, "", true);
  const auto error = [&] {
    try {
      artifacts::open_model(in_run("tuned"), quiet);
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_THAT(error(),
              HasSubstr("manifest.json: its base is " + in_run("base/checkpoints/step_00000020").string() +
                        ", and nothing is there"));
  run(recipe({"run.seed=2", "run.dir=" + (directory_ / "other").string()}));
  std::filesystem::rename(directory_ / "other" / "base", in_run("base"));
  EXPECT_THAT(error(), HasSubstr("was trained over weights of digest"));
}

TEST_F(AdapterStages, AreRefusedWhereTheyDoNotFit) {
  const auto error = [&](const std::vector<std::string>& sets) {
    try {
      return error_of(all(sets));
    } catch (const ConfigError& refused) {  // of the recipe as it is read
      return std::string(refused.what());
    }
  };
  EXPECT_THAT(error({"stages.tuned.model.from=preset:nano"}),
              HasSubstr("must name a model on disk for adapters"));
  EXPECT_THAT(error({"stages.tuned.quantize.weights.grid=q4_0"}), HasSubstr("excludes adapters"));
  EXPECT_THAT(error({"stages.tuned.adapters.modules=[q_prj]"}),
              HasSubstr("adapters.modules: \"q_prj\" names no part of the model; did you mean \"q_proj\"?"));
  EXPECT_THAT(error({"stages.tuned.adapters.layers=[7]"}),
              HasSubstr("adapters.modules: must choose a weight of the model that adapters.layers, exclude"));
  EXPECT_THAT(error({"stages.tuned.adapters.exclude=[all-linear]"}),
              HasSubstr("adapters.exclude: \"all-linear\" names none of the weights that modules choose"));
  EXPECT_THAT(error({"stages.tuned.adapters.overrides=[{modules: v_proj, rank: 2}]"}),
              HasSubstr("adapters.overrides: \"v_proj\" matches none of the weights"));
  EXPECT_THAT(error({"stages.peft.model.from=stage:base"}),
              HasSubstr("a peft folder holds adapters, and stage base trains none"));
  EXPECT_THAT(error({"stages.peft.export.format=gguf-lora", "stages.peft.export.evaluate=false"}),
              HasSubstr("a GGUF adapter has no row lengths (dora); export a merged GGUF"));
  EXPECT_THAT(error({"stages.peft.export.format=gguf-lora"}), HasSubstr("is no model that is read back"));
  EXPECT_THAT(error({"stages.base.model.ffn_width=40", "stages.tuned.adapters.base=q4_0"}),
              HasSubstr("adapters.base: q4_0 wants rows that are a multiple of 32"));
  EXPECT_THAT(error({"stages.more.adapters.rank=8"}),
              HasSubstr("stages.more.adapters: must be those of stage tuned"));
}

// Before the run, where a stage, a folder of peft or a checkpoint brings them.
TEST_F(AdapterStages, AreHeldToThoseThatTheyGoOn) {
  const std::string yaml =
      std::string(kRecipe) +
      R"(  - { name: peft, kind: export, model: { from: stage:tuned }, export: { format: peft } }
  - { name: again, kind: train, model: { from: stage:peft }, adapters: { modules: [q_proj, down_proj], rank: 4, dora: true } }
)";
  const auto refused = [&](const std::vector<std::string>& sets) {
    try {
      RecipeRun::recipe(yaml, sets);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string from = "stages.again.model.from=", rank = "stages.again.adapters.rank=8",
                    every = "adapters.modules=[all-linear]";
  EXPECT_EQ(refused({}), "no error");
  EXPECT_THAT(
      refused({rank}),
      HasSubstr("stages.again.adapters: must be those of stage peft, which are continued; export it first"));
  EXPECT_THAT(refused({"stages.tuned." + every, "stages.again." + every}),
              HasSubstr("must be those of stage peft, which are continued (modules: "
                        "model.layers.0.self_attn.q_proj, "))
      << "a folder of peft names each module";
  EXPECT_EQ(refused({"stages.tuned." + every, "stages.again." + every, from + "stage:tuned"}), "no error");
  run(RecipeRun::recipe(yaml));
  ASSERT_EQ(code_, ExitCode::kDone);
  for (const char* place : {"peft", "tuned"}) {
    EXPECT_EQ(refused({from + in_run(place).string()}), "no error") << place;
    EXPECT_THAT(refused({from + in_run(place).string(), rank}),
                HasSubstr("stages.again.adapters: must be those of " + in_run(place).string()))
        << place;
  }
}

}  // namespace retort::recipes
