#include "recipes/read_recipe.h"

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/error.h"
#include "data/tokenizers/tokenizer.h"
#include "models/decoder.h"
#include "models/family.h"
#include "models/hf_folder.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/print_section.h"
#include "recipes/recipe.h"
#include "recipes/shipped.h"
#include "recipes/stage_kind.h"
#include "recipes/stages/initial_model.h"
#include "tests/testing.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void write(const Path& path, const std::string& text) { std::ofstream(path) << text; }

// A directory that looks prepared: a recipe is read without opening its shards.
class Prepared {
 public:
  Prepared() { write(directory_ / "shard-00000.h5", ""); }
  std::string path() const { return directory_.path().string(); }

 private:
  testing::TemporaryDirectory directory_;
};

std::string error_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse_recipe(text, "r.yaml", sets);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

// A recipe whose only shards are a stage's, so that nothing needs to be on disk but a text, of which any will do.
constexpr const char* kPipeline = R"(run: { text: [/etc/passwd] }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }
model: { layers: 2, width: 64, heads: 2, context: 64, ffn_width: 96 }
train: { steps: 10, schedule: { warmup: 2 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, model: { width: 128, ffn_width: 192 } }
  - name: student
    kind: train
    distill: { teacher: { model: stage:teacher }, losses: [ { fn: forward_kl } ] }
    train: { steps: 20 }
)";

}  // namespace

TEST(ReadRecipe, StagesOverlayTheTopLevel) {
  const Recipe recipe = parse_recipe(kPipeline, "dir/kjv.yaml");
  EXPECT_EQ(recipe.run.name, "kjv");
  EXPECT_EQ(recipe.run.dir, "runs/kjv");
  ASSERT_EQ(recipe.stages.size(), 3u);
  const Stage& teacher = recipe.stages[1];
  EXPECT_EQ(teacher.get<ModelOptions>().spec().width, 128);
  EXPECT_EQ(teacher.get<ModelOptions>().spec().layers, 2);
  EXPECT_EQ(teacher.get<ModelOptions>().spec().head_dim, 64);
  EXPECT_FALSE(teacher.get<DistillSection>().has_value());
  const Stage& student = recipe.stages[2];
  EXPECT_EQ(student.get<train::TrainOptions>().steps, 20);
  EXPECT_EQ(student.get<train::TrainOptions>().schedule.warmup, 2);
  EXPECT_EQ(student.get<ModelOptions>().spec().width, 64);
  EXPECT_EQ(student.get<DistillSection>()->losses[0].fn, "forward_kl");
  EXPECT_THAT(stages_before(recipe, student), ElementsAre("text", "teacher"));
}

// The default gives way to the steps; what is written is meant.
TEST(ReadRecipe, AWarmupThatNobodyWroteIsNoLongerThanTheTraining) {
  std::string text = kPipeline;
  const std::string written = ", schedule: { warmup: 2 }";
  text.erase(text.find(written), written.size());
  const auto warmup = [](const Recipe& recipe, size_t stage) {
    return recipe.stages.at(stage).get<train::TrainOptions>().schedule.warmup;
  };
  const Recipe recipe = parse_recipe(text, "r.yaml");
  EXPECT_EQ(warmup(recipe, 1), 10);
  EXPECT_EQ(warmup(recipe, 2), 20) << "of its own steps";
  EXPECT_EQ(warmup(parse_recipe(text, "r.yaml", {"stages.teacher.train.steps=1000"}), 1), 50);
  EXPECT_EQ(warmup(parse_recipe(print_section(recipe), "r.yaml"), 1), 10);
  EXPECT_THAT(error_of(text, {"train.schedule.warmup=50"}),
              HasSubstr("train.schedule.warmup: must be at most train.steps 10, got 50"));
}

TEST(ReadRecipe, WithoutStagesItIsOneThatTrains) {
  const Prepared text;
  const Recipe recipe = parse_recipe(
      fmt::format("data: {{ train: {} }}\nmodel: {{ family: gpt2, heads: 8, width: 256 }}\n", text.path()),
      "r.yaml");
  ASSERT_EQ(recipe.stages.size(), 1u);
  EXPECT_EQ(recipe.stages[0].name, "train");
  EXPECT_EQ(recipe.stages[0].get<ModelOptions>().spec().norm, models::NormKind::kLayer);  // the family's
  EXPECT_EQ(recipe.stages[0].get<ModelOptions>().spec().ffn_width, 1024);
  EXPECT_EQ(recipe.stages[0].get<ModelOptions>().spec().kv_heads, 8);
}

TEST(ReadRecipe, FiveMistakesAtOnce) {
  const std::string text = R"(run: { text: [/etc/passwd] }
data: { train: stage:text, sequence: 32, batch_tokens: 250, micro_batch: 4 }
model: { family: lama, layers: 2, width: 64, heads: 2, context: 64 }
train:
  steps: 010
  optimizer: { lr: ten, wieght_decay: 0.1 }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train }
)";
  EXPECT_EQ(error_of(text),
            "5 problems\n"
            "r.yaml:2:56: data.batch_tokens: must be a multiple of sequence * micro_batch * ranks = 32 * 4 * "
            "1 = 128, got 250\n"
            "r.yaml:3:18: model.family: must be one of gpt2, llama, phi3, qwen2, qwen3, gemma3, bitnet, "
            "spacebyte, stlm, got \"lama\"; did you mean \"llama\"?\n"
            "r.yaml:5:10: train.steps: must be an integer >= 1, got 010\n"
            "r.yaml:6:20: train.optimizer.lr: must be a number > 0, got \"ten\"\n"
            "r.yaml:6:25: train.optimizer.wieght_decay: unknown key; did you mean \"weight_decay\"?");
}

// What it lacks is not known.
TEST(ReadRecipe, WhatIsNoYamlHasNoOtherProblem) {
  const std::string error = error_of("data: { train: [\nstages:\n  - { name: a, kind: train }\n");
  EXPECT_THAT(error, HasSubstr("not YAML"));
  EXPECT_THAT(error, ::testing::Not(HasSubstr("must name")));
}

// A family's choices are its own, and one that has two takes either.
TEST(ReadRecipe, TheFeedForwardNetworkFollowsTheFamily) {
  const Prepared text;
  const auto ffn_of = [&](const std::string& model) {
    return parse_recipe(fmt::format("data: {{ train: {} }}\nmodel: {{ {} }}\n", text.path(), model), "r.yaml")
        .stages[0]
        .get<ModelOptions>()
        .choices.ffn;
  };
  EXPECT_EQ(ffn_of("family: llama"), models::FfnKind::kSwiglu);
  EXPECT_EQ(ffn_of("family: bitnet"), models::FfnKind::kRelu2glu);
  EXPECT_EQ(ffn_of("family: bitnet, ffn: swiglu"), models::FfnKind::kSwiglu);
  EXPECT_THAT(error_of("data: { train: . }\nmodel: { ffn: relu2 }\n"),
              HasSubstr("model.ffn: must be one of swiglu, gelu, geglu, relu2glu, got \"relu2\""));
}

TEST(ReadRecipe, UnknownDuplicateAndAliasKeys) {
  EXPECT_THAT(error_of("trian: { steps: 3 }\n"),
              HasSubstr("r.yaml:1:1: trian: unknown key; did you mean \"train\"?"));
  EXPECT_THAT(error_of("train: { steps: 3, steps: 4 }\n"),
              HasSubstr("r.yaml:1:20: steps: duplicate key; first in line 1"));
  EXPECT_THAT(error_of("train: { steps: &s 3, log_every: *s }\n"), HasSubstr("aliases are not allowed"));
  EXPECT_THAT(error_of("<<: { steps: 3 }\n"), HasSubstr("r.yaml:1:1: <<: unknown key"));
  EXPECT_THAT(error_of("- 1\n"), HasSubstr("must be keys with values, got a list"));
}

// A loss takes its own parameters and no other's.
TEST(ReadRecipe, LossesTakeTheirOwnKeys) {
  const Prepared text;
  const auto with = [&](const std::string& loss) {
    return fmt::format(
        "data: {{ train: {} }}\ndistill: {{ teacher: {{ model: preset:smollm2-135m }}, losses: [{{ {} }}] "
        "}}\n",
        text.path(), loss);
  };
  const Recipe recipe = parse_recipe(
      with("fn: jsd, beta: 0.25, temperature: 2, schedule: { kind: cosine, to: 0, end: 9 }"), "r.yaml");
  const distill::LossOptions& loss = recipe.stages[0].get<DistillSection>()->losses[0];
  EXPECT_EQ(loss.beta, 0.25);
  EXPECT_EQ(loss.schedule->end, 9);
  EXPECT_EQ(print_section(parse_recipe(print_section(recipe), "p.yaml")), print_section(recipe));
  EXPECT_THAT(error_of(with("fn: forward_kl, beta: 0.5")), HasSubstr("beta: unknown key"));
  EXPECT_THAT(error_of(with("fn: cross_entropy, temperature: 2.0")), HasSubstr("temperature: unknown key"));
  EXPECT_THAT(error_of(with("fn: skew_reverse_kl, alpha: 1.0")),
              HasSubstr("alpha: must be a number in (0, 1), got 1.0"));
  EXPECT_THAT(error_of(with("weight: 1.0")), HasSubstr("loss 1 must name its fn, one of forward_kl"));
  EXPECT_THAT(error_of(with("fn: jsd, schedule: { kind: linear }")),
              HasSubstr("a schedule's end must lie after its begin 0, got 0"));
}

TEST(ReadRecipe, StageMistakesPointIntoTheStage) {
  const std::string text = kPipeline;
  EXPECT_EQ(
      error_of(text + "  - { name: rtn, kind: quantise }\n"),
      "r.yaml:12:24: stages.rtn.kind: must be one of tokenizer, prepare, train, capture, answers, quantize, "
      "export, evaluate, "
      "generate, report, got "
      "\"quantise\"; did you mean \"quantize\"?");
  EXPECT_EQ(error_of(text + "  - { name: out, kind: report, train: { steps: 3 } }\n"),
            "r.yaml:12:32: stages.out.train: of no use here; a stage of kind report takes report");
  EXPECT_EQ(error_of(text + "  - { kind: report }\n"), "r.yaml:12:5: stages.3: a stage needs a name");
  EXPECT_EQ(error_of(text + "  - { name: a/b, kind: report }\n"),
            "r.yaml:12:13: stages.a/b.name: must be text letters, digits, _ and -, got \"a/b\"");
  EXPECT_EQ(error_of(text + "  - { name: x, model: { from: stage:studnet } }\n"),
            "r.yaml:12:31: stages.x.model.from: no earlier stage \"studnet\"; did you mean \"student\"?");
  EXPECT_EQ(error_of(text + "  - { name: x, model: { from: stage:student, width: 3 } }\n"),
            "r.yaml:12:46: stages.x.model.width: must not stand beside from, which comes instead of it");
}

TEST(ReadRecipe, AStageCanDropAnOptionalSection) {
  std::string text = kPipeline;
  text = "quantize: {}\n" + text;
  EXPECT_TRUE(parse_recipe(text, "r.yaml").stages[1].get<QuantizeSection>().has_value());
  EXPECT_FALSE(parse_recipe(text, "r.yaml", {"stages.teacher.quantize=~"})
                   .stages[1]
                   .get<QuantizeSection>()
                   .has_value());
}

TEST(ReadRecipe, SetWinsAndIsCited) {
  const Recipe recipe = parse_recipe(
      kPipeline, "r.yaml",
      {"train.steps=30", "stages.student.train.steps=40", "run.text=/proc/self/exe", "run.seed=3"});
  EXPECT_EQ(recipe.stages[1].get<train::TrainOptions>().steps, 30);
  EXPECT_EQ(recipe.stages[2].get<train::TrainOptions>().steps, 40);
  EXPECT_THAT(recipe.run.text, ElementsAre("/proc/self/exe"));
  EXPECT_EQ(recipe.run.seed, 3);
  EXPECT_EQ(error_of(kPipeline, {"train.steps=many"}),
            "--set train.steps: must be an integer >= 1, got \"many\"");
  EXPECT_EQ(error_of(kPipeline, {"train.stesp=3"}),
            "--set train.stesp: unknown key; did you mean \"steps\"?");
  EXPECT_EQ(error_of(kPipeline, {"data.batch_tokens=100"}),
            "--set data.batch_tokens: must be a multiple of sequence * micro_batch * ranks = 32 * 4 * 1 = "
            "128, got 100");
}

TEST(ReadRecipe, BaseIsOneLevel) {
  testing::TemporaryDirectory directory;
  write(directory / "base.yaml", kPipeline);
  write(directory / "top.yaml", "base: base.yaml\ntrain: { steps: 15 }\nrun: { seed: 9 }\n");
  write(directory / "third.yaml", "base: top.yaml\n");
  const Recipe recipe = read_recipe((directory / "top.yaml").string());
  EXPECT_EQ(recipe.run.name, "top");
  EXPECT_EQ(recipe.run.seed, 9);
  EXPECT_THAT(recipe.run.text, ElementsAre("/etc/passwd"));
  EXPECT_EQ(recipe.stages[1].get<train::TrainOptions>().steps, 15);
  EXPECT_EQ(recipe.stages[2].get<train::TrainOptions>().steps, 20);
  try {
    read_recipe((directory / "third.yaml").string());
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("top.yaml:1:7: base: a base must not have a base of its own: one level"));
  }
  try {
    read_recipe((directory / "tpo.yaml").string());
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no such recipe"));
  }
}

TEST(ReadRecipe, ADirectoryIsNoRecipe) {
  const testing::TemporaryDirectory directory;
  const std::string name = directory.path().string();
  const auto error = [&]() -> std::string {
    try {
      read_recipe(name);
    } catch (const ConfigError& refused) {
      return refused.what();
    }
    return "no error";
  };
  const std::string rule = name + ": must be a recipe's file or a shipped recipe's name, got a directory";
  EXPECT_EQ(error(), rule);
  write(directory / "recipe.yaml", "");
  EXPECT_EQ(error(), rule + "; did you mean " + name + "/recipe.yaml?") << "a run's own directory";
}

TEST(ReadRecipe, AnUnknownBaseIsNamedWithItsPlace) {
  try {
    parse_recipe("base: quickstar\n", "mine.yaml");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("mine.yaml:1:7: base: quickstar: no such recipe; near it: quickstart"));
  }
}

TEST(ReadRecipe, ABaseMayBeAShippedRecipe) {
  const Recipe recipe = parse_recipe("base: quickstart\nrun: { text: /etc/passwd, seed: 3 }\n", "mine.yaml");
  EXPECT_EQ(recipe.run.dir, "runs/quickstart");  // its own name
  EXPECT_EQ(recipe.run.seed, 3);
  EXPECT_NE(recipe.find("teacher"), nullptr);
}

// A rule that the file breaks may show at a place of its base: the message names both.
TEST(ReadRecipe, AProblemInTheBaseNamesTheRecipeOnIt) {
  try {
    parse_recipe("base: quickstart\nrun:\n", "mine.yaml");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::ContainsRegex(
                                  "shipped:quickstart:[0-9:]+: stages.text.run.text: must name at least one "
                                  "text file, got none .mine.yaml is based on it."));
  }
}

TEST(ReadRecipe, MissingTextIsAProblemOfTheRecipe) {
  EXPECT_EQ(error_of(kPipeline, {"run.text=/nowhere/a.txt"}), "--set run.text: no such file: /nowhere/a.txt");
  EXPECT_EQ(error_of(kPipeline, {"run.text=[]"}),
            "--set run.text: must name at least one text file, got none");
}

TEST(ReadRecipe, ResolvedRecipeReadsToItself) {
  for (const std::string& text : {std::string(kPipeline), std::string(find_shipped("quickstart")->text)}) {
    const Recipe recipe = parse_recipe(text, "r.yaml", {"run.text=/etc/passwd"});
    const std::string printed = print_section(recipe);
    EXPECT_EQ(print_section(parse_recipe(printed, "r.yaml")), printed);
  }
}

TEST(ReadRecipe, SharingAndInitAreChosenInYaml) {
  const std::string text = std::string(kPipeline) + R"(
  - name: small
    kind: train
    model:
      head_dim: 64
      share: { ffn: all, attention_output: all, keep_first: 1, lora_rank: 4 }
      init: { from: stage:teacher, layers: [1, 0], width: first }
)";
  const Recipe recipe = parse_recipe(text, "r.yaml");
  const ModelOptions& model = recipe.find("small")->get<ModelOptions>();
  const models::DecoderSpec& spec = model.choices;
  EXPECT_TRUE(spec.share_ffn && spec.share_output);
  EXPECT_EQ(std::vector({spec.keep_first, spec.keep_last, spec.lora_rank}), (std::vector<int64_t>{1, 0, 4}));
  EXPECT_THAT(model.init->layers, ElementsAre("1", "0"));
  EXPECT_EQ(init_source(*recipe.find("small")), "stage:teacher");
  const std::string printed = print_section(recipe);
  EXPECT_EQ(print_section(parse_recipe(printed, "r.yaml")), printed);
  EXPECT_THAT(error_of(text, {"stages.small.model.share.keep_first=2"}),
              HasSubstr("model.share.keep_first: must lie in [0, 1], got 2"));
  EXPECT_THAT(error_of(text, {"stages.small.model.init.width=best"}),
              HasSubstr("must be one of importance, first, principal, got \"best\""));
}

// Of a stage, a preset or a file: what the recipe does not name is the source's.
TEST(ReadRecipe, ACutStudentTakesEveryOtherChoiceFromItsSource) {
  const testing::TemporaryDirectory directory;
  models::DecoderSpec spec = models::families().at("qwen2").defaults;
  spec.vocabulary = 256;
  spec.context = 96;
  spec.layers = 6;
  spec.width = 64;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 24;
  spec.ffn_width = 80;
  spec.norm_eps = 1e-3;
  spec.rope_theta = 123456.0;
  spec.rope_scaling.kind = "linear";
  spec.rope_scaling.factor = 2.0;
  artifacts::ExportOptions plain;
  plain.format = "hf";
  plain.type = "f32";
  const Path folder = directory / "hf";
  artifacts::export_model(artifacts::new_model(spec, 1, "new"), plain, folder, local_files());
  const std::string text = fmt::format(R"(
data: {{ train: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 8 }}
stages:
  - {{ name: text, kind: prepare, prepare: {{ text: [ /etc/passwd ] }} }}
  - {{ name: teacher, kind: train, model: {{ from: "{}" }} }}
  - {{ name: small, kind: train, model: {{ layers: 3, ffn_width: 64, init: {{ from: SOURCE }} }} }}
)",
                                       folder.string());
  for (const std::string& source : {std::string("stage:teacher"), folder.string()}) {
    std::string one = text;
    one.replace(one.find("SOURCE"), 6, "\"" + source + "\"");
    const Recipe recipe = parse_recipe(one, "cut.yaml", {"run.dir=" + (directory / "run").string()});
    models::DecoderSpec wanted = spec;
    wanted.layers = 3;
    wanted.ffn_width = 64;
    EXPECT_TRUE(recipe.stages[2].get<ModelOptions>().spec() == wanted) << source;
    const std::string printed = print_section(recipe);
    EXPECT_EQ(print_section(parse_recipe(printed, "r.yaml")), printed);
  }
}

TEST(ReadRecipe, AMixtureIsAListOfSources) {
  const Recipe recipe = parse_recipe(R"(
data: { mixture: [ { train: stage:a, weight: 0.7 }, { train: stage:b, weight: 0.3 } ] }
stages:
  - { name: a, kind: prepare, prepare: { text: [ /etc/passwd ] } }
  - { name: b, kind: prepare, prepare: { text: [ /proc/self/exe ] } }
  - { name: m, kind: train }
)",
                                     "mixed.yaml", {"run.dir=/tmp/mixed"});
  EXPECT_EQ(inputs_of(recipe, recipe.stages[1]).back().address, "/proc/self/exe");
  const std::vector<SourceOptions> sources = recipe.stages[2].get<DataOptions>().sources();
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[1].train, "stage:b");
  EXPECT_EQ(sources[1].weight, 0.3);
  EXPECT_EQ(recipe.stages[2].get<DataOptions>().sources().size(), 2u);
  EXPECT_THROW(parse_recipe("data: { mixture: [ { train: /dev/null, weight: 0 } ] }", "zero.yaml", {}),
               ConfigError);
}

// Some want a model of the user's, or a task.
TEST(ReadRecipe, EveryShippedRecipeIsValid) {
  const testing::TemporaryDirectory directory;
  models::Decoder model({.vocabulary = 256,
                         .context = 512,
                         .layers = 1,
                         .width = 32,
                         .heads = 2,
                         .kv_heads = 2,
                         .head_dim = 16,
                         .ffn_width = 64});
  models::initialise(model.parameters(), "gpt2", 0.02, 1);
  models::IdentityMap map;
  models::HfExtras extras;
  extras.files = data::make_byte_tokenizer()->hf_files();
  models::save_hf_folder(local_files(), directory / "hf", model, map, at::kFloat, extras);
  const std::string from = "model.from=" + (directory / "hf").string();
  write_durably(local_files(), directory / "task.yaml", "include: classification\n");
  write_durably(local_files(), directory / "labels.csv", "text,label\n");
  const std::string tasks = "evaluate.tasks=[" + (directory / "task.yaml").string() + "]";
  const std::string there = "=" + (directory / "hf").string();
  std::vector<std::string> smaller = {"stages.tokens.prepare.tokenizer=bytes", "stages.teacher." + from,
                                      "stages.labels." + from,
                                      "stages.bytes_kd.distill.teacher.model" + there};
  for (const char* cut : {"cut", "cut_ce", "cut_kd", "cut_long", "shared_kd"})
    smaller.push_back(fmt::format("stages.{}.model.init.from{}", cut, there));
  for (const char* size : {"layers=1", "width=32", "heads=2", "kv_heads=2", "head_dim=16", "ffn_width=64"})
    smaller.push_back(fmt::format("model.{}", size));
  const std::map<std::string, std::vector<std::string>> wants = {
      {"smaller", smaller},
      {"dpo", {from, "stages.pairs.prepare.tokenizer=bytes"}},
      {"evaluate", {from, "stages.text.evaluate.text=/etc/passwd", "stages.tasks." + tasks}},
      {"finetune-chat", {from, "prepare.tokenizer=bytes", "prepare.chat_template=chatml"}},
      {"finetune-classify", {from, "prepare.tokenizer=bytes", tasks}},
      {"lora", {from, "prepare.tokenizer=bytes"}},
      {"low-bits",
       {from, "prepare.tokenizer=bytes", tasks, "evaluate.reference=" + (directory / "hf").string(),
        "evaluate.text=/etc/passwd"}},
      {"qlora", {from, "prepare.tokenizer=bytes"}}};
  for (const std::string& name : shipped_names()) {
    if (name.starts_with("presets/")) continue;  // shapes: presets_test
    std::vector<std::string> sets = {"run.text=/etc/passwd"};
    if (const auto own = wants.find(name); own != wants.end())
      sets.insert(sets.end(), own->second.begin(), own->second.end());
    EXPECT_NO_THROW(read_recipe(name, sets)) << name;
  }
}

TEST(ReadRecipe, QuickstartStudentStoresAtMostAnEighthOfItsTeacher) {
  const Recipe recipe = read_recipe("quickstart", {"run.text=/etc/passwd"});
  const models::Decoder teacher(recipe.find("teacher")->get<ModelOptions>().spec(), at::kMeta);
  for (const char* name : {"scratch", "distilled"}) {
    const models::Decoder student(recipe.find(name)->get<ModelOptions>().spec(), at::kMeta);
    EXPECT_LE(8 * student.parameters().stored(), teacher.parameters().stored()) << name;
    EXPECT_TRUE(student.spec().tie_embeddings && student.spec().share_ffn) << name;
  }
}

}  // namespace retort::recipes
