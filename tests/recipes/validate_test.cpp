#include "recipes/validate.h"

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/file.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "models/family.h"
#include "quantize/post_training.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stages/train_check.h"
#include "tests/testing.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Recipe pipeline() {
  Recipe recipe;
  recipe.run.text = {"/dev/null"};
  Stage text("prepare", "text"), teacher("train", "teacher"), student;
  teacher.get<DataOptions>().train = "stage:text";
  student = teacher;
  student.name = "student";
  student.get<DistillSection>().emplace();
  student.get<DistillSection>()->teacher.model = "stage:teacher";
  student.get<DistillSection>()->losses.push_back({.fn = "forward_kl"});
  recipe.stages = {text, teacher, student};
  return recipe;
}

std::vector<std::string> findings_of(const Recipe& recipe, int64_t ranks = 0) {
  std::vector<std::string> out;
  for (const Finding& f : validate(recipe, ranks))
    out.push_back(fmt::format("{} {}: {}", f.stage, f.keys[0], f.text));
  return out;
}

}  // namespace

TEST(Validate, SoundPipelinesPass) { EXPECT_THAT(findings_of(pipeline()), IsEmpty()); }

// Before any stage has begun, not when the one that writes conversations refuses it.
TEST(Validate, ATemplateThatWritesTheDateIsToldOne) {
  const testing::TemporaryDirectory directory;
  const std::string dated = (directory / "dated.jinja").string(),
                    plain = (directory / "plain.jinja").string();
  std::ofstream(dated) << "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}";
  std::ofstream(plain) << "{{ date_string | default('26 Jul 2024') }}{{ messages[0].content }}";
  Recipe recipe = pipeline();
  auto& documents = recipe.stages[0].get<data::PrepareOptions>().documents;
  documents.chat_template = dated;
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "no conversations, so nothing is written";
  documents.messages = "messages";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("text prepare.chat_date: must be a date")));
  documents.chat_date = "2026-02-03";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  documents.chat_date = "2026-02-30";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("2026-02-30")));
  documents.chat_date.clear();
  documents.chat_template = plain;
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it has a date of its own";
  documents.chat_template = (directory / "none.jinja").string();
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "that it is missing is told elsewhere";
}

TEST(Validate, BatchArithmeticFollowsTheRanks) {
  Recipe recipe = pipeline();
  EXPECT_THAT(findings_of(recipe, 8), IsEmpty());  // 16384 = 256 * 8 * 8
  EXPECT_THAT(findings_of(recipe, 3),
              ElementsAre(HasSubstr("256 * 8 * 3 = 6144, got 16384"), HasSubstr("* 3")));
  recipe.stages[1].get<ParallelOptions>().ranks = 5;
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("teacher data.batch_tokens")));
}

TEST(Validate, TrainedGridsMustFitTheFile) {
  const auto exported = [](const std::string& grid, const std::string& format) {
    Recipe recipe = pipeline();
    recipe.stages[2].get<QuantizeSection>().emplace();
    recipe.stages[2].get<QuantizeSection>()->weights.grid = grid;
    Stage out("export", "out");
    out.get<ModelOptions>().from = "stage:student";
    out.get<artifacts::ExportOptions>().format = format;
    recipe.stages.push_back(out);
    return findings_of(recipe);
  };
  EXPECT_THAT(exported("q4_0", "gguf"), IsEmpty());
  EXPECT_THAT(exported("nvfp4", "compressed-tensors"), IsEmpty());
  EXPECT_THAT(
      exported("nvfp4", "gguf"),
      ElementsAre("out export.format: a GGUF cannot hold grid nvfp4; format compressed-tensors can (of "
                  "stage student)"));
  EXPECT_THAT(exported("q4_0", "compressed-tensors"), ElementsAre(HasSubstr("cannot hold grid q4_0")));
  EXPECT_THAT(exported("q4_0", "hf"), IsEmpty());
}

TEST(Validate, MethodsMustServeTheirGrids) {
  Recipe recipe = pipeline();
  Stage s("quantize", "quantize");
  s.get<ModelOptions>().from = "stage:teacher";
  s.get<QuantizeSection>().emplace();
  s.get<QuantizeSection>()->weights.grid = "nvfp4";
  s.get<artifacts::ExportOptions>().format = "hf";
  s.get<quantize::PostTrainingOptions>().clip_search = true;
  recipe.stages.push_back(s);
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("quantize.weights.grid: a clip search")));
  recipe.stages.back().get<quantize::PostTrainingOptions>() = {.method = "imatrix"};
  recipe.stages.back().get<DataOptions>().train = "stage:text";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("weighs the searches of q4_k and q6_k; nvfp4 has none")));
}

TEST(Validate, BytePatchModelsStayCheckpoints) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices = models::families().at("spacebyte").defaults;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  Stage out("export", "out");
  out.get<ModelOptions>().from = "stage:student";
  recipe.stages.push_back(out);
  recipe.stages[2].get<ModelOptions>().init.emplace();
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre("student model.init: a byte-patch model is cut from none, and none from it",
                  "out export.format: a spacebyte model cannot be written as a GGUF: llama.cpp has no such "
                  "architecture; it stays a checkpoint of retort"));
  recipe.stages[2].get<ModelOptions>().init.reset();
  recipe.stages[3].get<artifacts::ExportOptions>().format = "checkpoint";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  Stage quantize("quantize", "out");
  quantize.get<ModelOptions>().from = "stage:student";
  quantize.get<artifacts::ExportOptions>().format = "checkpoint";
  quantize.get<QuantizeSection>().emplace().weights.grid = "fp8";
  recipe.stages[3] = quantize;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[3].get<quantize::PostTrainingOptions>().method = "gptq";
  recipe.stages[3].get<DataOptions>().train = "stage:text";
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre("out post_training.method: method gptq goes layer by layer, and a spacebyte model is no "
                  "stack of layers; rtn needs none"));
}

// Before anything is trained for a file that cannot hold it.
TEST(Validate, WhatAGgufCannotSayIsKnownAtOnce) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices = models::families().at("bitnet").defaults;
  Stage out("export", "out");
  out.get<ModelOptions>().from = "stage:student";
  recipe.stages.push_back(out);
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre(HasSubstr("out export.format: [gguf] llama.cpp's architecture bitnet computes SiLU")));
  recipe.stages[2].get<ModelOptions>().choices.ffn = models::FfnKind::kSwiglu;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[2].get<ModelOptions>().choices.ffn = models::FfnKind::kRelu2glu;
  recipe.stages[3].get<artifacts::ExportOptions>().format = "hf";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

// Whatever stage or option wants it, and whatever kind of stage it is.
TEST(Validate, AValidationPartIsThereForWhoNeedsIt) {
  int wanting = 0;
  for (const StageKind& kind : stage_kinds()) {
    Recipe recipe = pipeline();
    recipe.stages.resize(2);
    Stage stage(kind.name, "x");
    if (stage.find<DataOptions>() == nullptr) continue;
    stage.get<DataOptions>().train = stage.get<DataOptions>().validation = "stage:text";
    if (stage.find<ModelOptions>() != nullptr && kind.name != "train")
      stage.get<ModelOptions>().from = "stage:teacher";
    if (stage.find<artifacts::ExportOptions>() != nullptr)
      stage.get<artifacts::ExportOptions>().evaluate = true;
    recipe.stages.push_back(stage);
    const auto needs = [&] {
      const auto found = findings_of(recipe);
      return std::any_of(found.begin(), found.end(), [](const std::string& one) {
        return one.find("needs a validation part, and stage text makes none") != std::string::npos;
      });
    };
    EXPECT_FALSE(needs()) << kind.name;
    recipe.stages[0].get<data::PrepareOptions>().validation = 0;
    const auto inputs = inputs_of(recipe, recipe.stages[2]);
    const bool wants = std::any_of(inputs.begin(), inputs.end(),
                                   [](const Input& input) { return input.part == "validation"; });
    EXPECT_EQ(needs(), wants) << kind.name;
    wanting += wants;
  }
  EXPECT_GE(wanting, 3);
}

// A file's own shape is judged as a stage's.
TEST(Validate, ModelsOfFilesAreJudgedBeforeTheTraining) {
  const testing::TemporaryDirectory directory;
  models::DecoderSpec spec = models::families().at("llama").defaults;
  spec.vocabulary = 300;
  spec.context = 64;
  spec.layers = 2;
  spec.width = spec.ffn_width = 48;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 24;
  const Path folder = directory / "hf";
  artifacts::ExportOptions plain;
  plain.format = "hf";
  plain.type = "f32";
  artifacts::export_model(artifacts::new_model(spec, 1, "new"), plain, folder, local_files());
  Recipe recipe = pipeline();
  Stage out("export", "out");
  out.get<ModelOptions>().from = folder.string();
  out.get<artifacts::ExportOptions>().type = "q8_0";
  recipe.stages.push_back(out);
  recipe.stages[2].get<DistillSection>().reset();
  recipe.stages[2].get<ModelOptions>().from = folder.string();
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student data.sequence: must be at most the model's context 64, got 256",
                          HasSubstr("out export.type: embed.weight has rows of 48")));
  recipe.stages[2].get<ModelOptions>().from.clear();
  recipe.stages[2].get<ModelOptions>().init.emplace().from = folder.string();
  recipe.stages.pop_back();
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("as in the model that init.from names")));
  EXPECT_THAT(missing_files(recipe), IsEmpty());
  std::filesystem::remove(folder / "model.safetensors");
  ASSERT_EQ(missing_files(recipe).size(), 1u);
  EXPECT_THAT(missing_files(recipe)[0].text, HasSubstr("no model.safetensors"));
}

TEST(Validate, ATokenizerThatAGgufCannotName) {
  RETORT_NEEDS_TEST_DATA();
  const Path tokenizer = testing::test_data() / "faults" / "tok" / "pre_o200k";
  if (!std::filesystem::exists(tokenizer)) GTEST_SKIP() << tokenizer << " is not there";
  Recipe recipe = pipeline();
  recipe.stages[0].get<data::PrepareOptions>().tokenizer = tokenizer.string();
  recipe.stages[1].get<ModelOptions>().choices.vocabulary = 700;
  recipe.stages[2].get<ModelOptions>().choices.vocabulary = 700;
  Stage again("train", "again"), out("export", "out");
  again.get<DataOptions>().train = "stage:text";
  again.get<ModelOptions>().from = "stage:student";
  out.get<ModelOptions>().from = "stage:again";
  recipe.stages.insert(recipe.stages.end(), {again, out});
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("out export.format: ")));
  EXPECT_THAT(findings_of(recipe)[0], HasSubstr("names its pre-tokenizer"));
  recipe.stages.back().get<artifacts::ExportOptions>().format = "hf";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

TEST(Validate, ReferencesPointBackToTheRightKind) {
  Recipe recipe = pipeline();
  std::swap(recipe.stages[1], recipe.stages[2]);
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student distill.teacher.model: stage \"teacher\" must come earlier"));
  recipe = pipeline();
  recipe.stages[2].get<DistillSection>()->teacher.model = "stage:text";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("must be of kind train, quantize, export, got prepare")));
  recipe.stages[2].get<DistillSection>()->teacher.model = "preset:smollm2-135";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("did you mean \"smollm2-135m\"?")));
}

// What is beyond the tokenizer's ids is padding, in either.
TEST(Validate, TeacherAndStudentKnowTheTextsVocabulary) {
  Recipe recipe = pipeline();
  recipe.stages[1].get<ModelOptions>().choices.vocabulary = 512;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[1].get<ModelOptions>().choices.vocabulary = 128;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("teacher model.vocabulary: must be at least 256"),
                          HasSubstr("student distill.teacher.model: must be at least 256")));
}

TEST(Validate, ATokenizerStageMakesTheVocabulary) {
  Recipe recipe = pipeline();
  Stage bpe("tokenizer", "bpe");
  bpe.get<data::BpeTrainingOptions>().vocabulary = 300;
  recipe.stages.insert(recipe.stages.begin(), bpe);
  recipe.stages[1].get<data::PrepareOptions>().tokenizer = "stage:bpe";
  for (size_t i : {2, 3}) recipe.stages[i].get<ModelOptions>().choices.vocabulary = 300;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  EXPECT_THAT(stages_before(recipe, recipe.stages[1]), ElementsAre("bpe"));
  recipe.stages[2].get<ModelOptions>().choices.vocabulary = 299;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("teacher model.vocabulary: must be at least 300, the vocabulary of tokenizer "
                          "\"stage:bpe\", got 299",
                          HasSubstr("student distill.teacher.model: must be at least 300")));
  recipe = pipeline();
  recipe.stages[0].get<data::PrepareOptions>().tokenizer = "stage:bpf";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("prepare.tokenizer: no earlier stage \"bpf\"")));
}

TEST(Validate, TeachersAreWhatTheirKindNeeds) {
  Recipe recipe = pipeline();
  TeacherOptions& teacher = recipe.stages[2].get<DistillSection>()->teacher;
  teacher.cache = {"/dev"};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student distill.teacher.cache: is for kind cached, got kind live"));
  teacher = {.kind = "self"};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("teacher.kind: self needs quantize with from_step 0")));
  recipe.stages[2].get<QuantizeSection>().emplace();
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  teacher.model = "stage:teacher";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("is what the stage begins with")));
  teacher = {.kind = "cached"};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("teacher.cache: must name one cache for each of 1 source(s), got 0")));
}

TEST(Validate, CachesAreOfTheTextAndTheTeacher) {
  Recipe recipe = pipeline();
  Stage labels("capture", "labels");
  recipe.stages.insert(recipe.stages.begin() + 2, labels);
  recipe.stages[3].get<DistillSection>()->teacher = {.kind = "cached", .cache = {"stage:labels"}};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("labels model.from"), HasSubstr("labels data.train"),
                          HasSubstr("student data.train: must be , the text that stage")));
  recipe.stages[2].get<ModelOptions>().from = "stage:teacher";
  recipe.stages[2].get<DataOptions>().train = "stage:text";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  EXPECT_THAT(stages_before(recipe, recipe.stages[3]), ElementsAre("text", "labels"));
  EXPECT_THAT(needed_for(recipe, "capture"), ElementsAre("text", "teacher", "labels"));
  recipe.stages[3].get<DistillSection>()->teacher.model = "stage:text";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("must be of kind train"), HasSubstr("must be stage:teacher, the model")));
  recipe.stages[3].get<DistillSection>()->teacher = {.kind = "cached", .cache = {"stage:teacher"}};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must be of kind capture, got train")));
}

TEST(Validate, SeveralTeachersAreLiveAndWeigh) {
  Recipe recipe = pipeline();
  DistillOptions& distill = *recipe.stages[2].get<DistillSection>();
  distill.teacher = {};
  distill.teachers = {{{.model = "stage:teacher"}}, {{.model = "stage:teacher"}, 0.5}};
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  distill.teachers[0].weight = distill.teachers[1].weight = 0;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("distill.teachers.weight: must be > 0 in every source")));
  distill.teachers[0].source_weights = {1, 2};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("a weight for each of 1 source(s), got 2")));
  recipe.stages[2].get<DataOptions>().train.clear();
  recipe.stages[2].get<DataOptions>().mixture = {{"stage:text"}, {"/dev", 2.0}};
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  distill.teachers[0].source_weights = {1, 0};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must be > 0 in every source")));
  distill.teachers[0].source_weights = {1, -1};
  distill.teachers[1].weight = 2;
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("source_weights: must be >= 0")));
  recipe.stages[2].get<DataOptions>().mixture.clear();
  recipe.stages[2].get<DataOptions>().train = "stage:text";
  distill.teachers[0] = {{.kind = "cached", .cache = {"/dev"}}, 1};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("a cache holds no whole distribution")));
  distill.teachers[0] = {{.model = "stage:techer"}, 1};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("student distill.teachers.model: no earlier stage")));
}

TEST(Validate, SequencesFitTheContext) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices.context = 128;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student data.sequence: must be at most the model's context 128, got 256"));
}

TEST(Validate, GridsFitTheWidths) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<QuantizeSection>().emplace();
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[2].get<ModelOptions>().choices.ffn_width = 100;
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("ffn.down.weight")));
  recipe.stages[2].get<QuantizeSection>()->weights.grid = "none";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[2].get<QuantizeSection>()->from_step = 1000;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student quantize.from_step: must be below train.steps 1000, got 1000"));
}

TEST(Validate, QuantizeStagesReadTextForTheirMethodAndWriteFilesThatHoldTheGrid) {
  Recipe recipe = pipeline();
  Stage stage("quantize", "quantize");
  stage.get<ModelOptions>().from = "stage:teacher";
  stage.get<QuantizeSection>().emplace();
  stage.get<quantize::PostTrainingOptions>().method = "gptq";
  recipe.stages.push_back(stage);
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("quantize data.train: must name token shards for method gptq to read, got none"));
  Stage& s = recipe.stages.back();
  s.get<DataOptions>().train = "stage:text";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  s.get<DataOptions>().train = "stage:teacher";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("quantize data.train: stage \"teacher\" must be")));
  s.get<DataOptions>().train = "stage:text";
  s.get<artifacts::ExportOptions>().format = "compressed-tensors";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("a compressed-tensors folder cannot hold grid q4_0")));
  s.get<QuantizeSection>()->weights.grid = "fp8";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  s.get<artifacts::ExportOptions>().format = "gguf";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("quantize quantize.weights.grid: a GGUF cannot hold")));
  s.get<QuantizeSection>()->weights.grid = "q4_0";
  s.get<artifacts::ExportOptions>().type = "f16";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("quantize export.type")));
}

TEST(Validate, ShapesAreJudgedByTheirOwner) {
  Recipe recipe = pipeline();
  recipe.stages[1].get<ModelOptions>().choices.kv_heads = 3;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("teacher model.heads: must be a multiple of model.kv_heads, got 4 and 3"));
}

TEST(Validate, StudentsAreCutFromTeachersThatFit) {
  Recipe recipe = pipeline();
  ModelOptions& student = recipe.stages[2].get<ModelOptions>();
  student.init.emplace();
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  EXPECT_THAT(stages_before(recipe, recipe.stages[2]), ElementsAre("text", "teacher"));
  student.choices.layers = 5;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student model.layers: must be at most the teacher's 4, got 5"));
  student.choices.layers = 2;
  student.init->layers = {"3", "4"};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student model.init.layers: must name layers 0 to 3 of the teacher, got 4"));
  student.init->layers = {"first"};
  recipe.stages[2].get<DistillSection>().reset();
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("student model.init.from: teacher means")));
  student.init->from = "stage:teachr";
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("did you mean \"teacher\"?")));
  student.init->from = "preset:smollm2-135m";
  EXPECT_THAT(findings_of(recipe), ElementsAre("student model.vocabulary: must be 49152 as in the model "
                                               "that init.from names, got 256"));
}

TEST(Validate, AdaptersLieOnNoGrid) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices.share_ffn = true;
  recipe.stages[2].get<ModelOptions>().choices.lora_rank = 8;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[2].get<QuantizeSection>().emplace();
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("student quantize: needs model.share.lora_rank 0")));
  recipe.stages[2].get<QuantizeSection>().reset();
  recipe.stages[2].get<ModelOptions>().choices.lora_rank = 400;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("student model.share.lora_rank: must lie in [0, 128]")));
}

// An exported file holds neither adapters nor what layers share.
TEST(Validate, AnExportMergesBeforeWhatFollows) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices.share_ffn = true;
  recipe.stages[2].get<ModelOptions>().choices.lora_rank = 8;
  Stage out("export", "out"), small("quantize", "small");
  out.get<ModelOptions>().from = "stage:student";
  out.get<artifacts::ExportOptions>().format = "hf";
  small.get<ModelOptions>().from = "stage:out";
  small.get<quantize::PostTrainingOptions>().scheme = "rtn-q4_0";
  recipe.stages.insert(recipe.stages.end(), {out, small});
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  EXPECT_EQ(spec_of(recipe, "stage:out")->lora_rank, 0);
  recipe.stages[4].get<ModelOptions>().from = "stage:student";
  EXPECT_THAT(findings_of(recipe), ::testing::Contains(HasSubstr("needs model.share.lora_rank 0")));
}

TEST(Validate, EveryKindAsksForWhatItNeeds) {
  Recipe recipe = pipeline();
  recipe.run.text.clear();
  recipe.stages[1].get<DataOptions>().train.clear();
  recipe.stages[2].get<DistillSection>()->losses.clear();
  for (const char* kind : {"quantize", "export", "generate"}) {
    Stage stage(kind, kind);
    recipe.stages.push_back(stage);
  }
  recipe.stages.push_back(recipe.stages.back());
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("text run.text"), HasSubstr("teacher data.train"),
                          HasSubstr("student distill.losses"), HasSubstr("quantize model.from"),
                          HasSubstr("quantize quantize"), HasSubstr("export model.from"),
                          HasSubstr("generate model.from"), HasSubstr("two stages are called \"generate\""),
                          HasSubstr("generate model.from")));
}

TEST(Validate, AMixtureNamesEachSourceOnce) {
  Recipe recipe = pipeline();
  DataOptions& data = recipe.stages[1].get<DataOptions>();
  data.mixture = {{"stage:text", 0.7}, {"/shards", 0.3}};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("teacher data.mixture: excludes data.train")));
  data.train.clear();
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  EXPECT_THAT(stages_before(recipe, recipe.stages[1]), ElementsAre("text"));
  data.mixture = {{"stage:test", 0.7}, {"/shards", 0.3}, {"", 1}, {"/shards", 0.1}};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("teacher data.mixture: no earlier stage \"test\""),
                          HasSubstr("teacher data.mixture: source 3 must name token shards"),
                          HasSubstr("teacher data.mixture: \"/shards\" is named twice")));
}

TEST(Validate, ExportTypesFitTheFormat) {
  Recipe recipe = pipeline();
  Stage stage("export", "hf");
  stage.get<ModelOptions>().from = "stage:teacher";
  stage.get<artifacts::ExportOptions>().format = "hf";
  stage.get<artifacts::ExportOptions>().type = "q4_0";
  stage.get<artifacts::ExportOptions>().evaluate = true;
  recipe.stages.push_back(stage);
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("an HF folder holds f32, f16 or bf16, got q4_0"),
                                               HasSubstr("hf data.validation")));
}

TEST(Validate, RowsOfAnExportDivideIntoItsBlocks) {
  Recipe recipe = pipeline();
  Stage stage("export", "out");
  stage.get<ModelOptions>().from = "stage:teacher";
  stage.get<artifacts::ExportOptions>().type = "q4_k";
  recipe.stages[1].get<ModelOptions>().choices.width = 288;
  recipe.stages.push_back(stage);
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre("out export.type: embed.weight has rows of 288, and q4_k wants a multiple of 256; q8_0 "
                  "takes them"));
  recipe.stages.back().get<artifacts::ExportOptions>().type = "q4_0";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

TEST(Validate, ATokenizersOptionsFitTogether) {
  Recipe recipe = pipeline();
  Stage stage("tokenizer", "words");
  stage.get<data::BpeTrainingOptions>().special = {"a"};
  recipe.stages.insert(recipe.stages.begin(), stage);
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must be longer than a byte")));
}

TEST(Validate, WhatIsThereMustBeOfItsKind) {
  const testing::TemporaryDirectory directory;
  std::ofstream(directory / "file") << "text\n";
  std::filesystem::create_directories(directory / "out" / "train");
  std::ofstream(directory / "out" / "train" / "shard-00000.h5") << "";
  Recipe recipe = pipeline();
  recipe.run.text = {directory.path().string()};
  recipe.run.dir = (directory / "file").string();
  recipe.stages[1].get<DataOptions>().train = (directory / "file").string();
  recipe.stages[2].get<DataOptions>().train = (directory / "out").string();
  std::vector<std::string> said;
  for (const Finding& f : missing_files(recipe)) said.push_back(f.stage + " " + f.keys[0] + ": " + f.text);
  EXPECT_THAT(said, ElementsAre(HasSubstr(" run.dir: must be a directory"),
                                HasSubstr(" run.text: must be a file of text"),
                                HasSubstr("teacher data.train: must be a directory of token shards")))
      << "a directory that data prepare made is known by its parts";
  recipe = pipeline();
  recipe.run.text = {std::string(5000, 'a')};
  EXPECT_THAT(missing_files(recipe).at(0).text, HasSubstr("File name too long"));
}

TEST(Validate, MissingFilesAreFound) {
  Recipe recipe = pipeline();
  recipe.run.text = {"/nowhere/a.txt"};
  recipe.stages[2].get<DistillSection>()->teacher.model = "/nowhere/teacher";
  std::vector<std::string> keys;
  for (const Finding& f : missing_files(recipe)) keys.push_back(f.stage + " " + f.keys[0]);
  EXPECT_THAT(keys, ElementsAre(" run.text", "student distill.teacher.model"));
}

TEST(Validate, SpecsAreFollowedThroughStages) {
  Recipe recipe = pipeline();
  Stage last("train", "last");
  last.get<ModelOptions>().from = "stage:student";
  recipe.stages.push_back(last);
  EXPECT_EQ(spec_of(recipe, recipe.stages[3])->width, recipe.stages[2].get<ModelOptions>().choices.width);
  EXPECT_EQ(spec_of(recipe, "preset:tinyllama-1.1b")->layers, 22);
  EXPECT_FALSE(spec_of(recipe, "some/file.gguf").has_value());
}

}  // namespace retort::recipes
