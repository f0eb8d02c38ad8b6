#include "recipes/validate.h"

#include <gmock/gmock.h>

#include "artifacts/export_model.h"
#include "core/file.h"
#include "data/prepare.h"
#include "models/family.h"
#include "quantize/post_training.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "tests/recipes/pipeline_recipe.h"
#include "tests/testing.h"
#include "train/train_options.h"

namespace retort::recipes {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ValidateExport, TrainedGridsMustFitTheFile) {
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

// How many steps epochs are is known when the text is, so that a grid which ends early is not judged before.
TEST(ValidateExport, EpochsTrainAGridThatEnds) {
  const auto exported = [](double epochs) {
    Recipe recipe = pipeline();
    auto& training = recipe.stages[2];
    training.get<train::TrainOptions>().epochs = epochs;
    training.get<QuantizeSection>().emplace().weights.grid = "int4_g32";
    training.get<QuantizeSection>()->until_step = training.get<train::TrainOptions>().steps - 1;
    Stage out("export", "out");
    out.get<ModelOptions>().from = "stage:student";
    out.get<artifacts::ExportOptions>().format = "compressed-tensors";
    recipe.stages.push_back(out);
    return findings_of(recipe);
  };
  EXPECT_THAT(exported(0.0), ElementsAre(HasSubstr("out export.format")));
  EXPECT_THAT(exported(0.5), IsEmpty());
}

// Validations may choose a model of before the step from which it is on its grid, or end the training there.
TEST(ValidateExport, AModelOfBeforeItsGridIsNotPacked) {
  struct Row {
    const char *grid, *format;
    bool keep_best;
    int64_t patience, every;
    double epochs;
    const char* why;  // "": nothing
  };
  const char* packed = "compressed-tensors";
  for (const Row& row :
       {Row{"int4_g32", packed, true, 0, 500, 0,
            "train.keep_best of stage student may leave the model of 500 steps, none"},
        Row{"int4_g32", packed, true, 0, 501, 0, ""}, Row{"int4_g32", packed, true, 0, 0, 0, ""},
        Row{"int4_g32", packed, true, 9, 100, 0,
            "train.keep_best of stage student may leave the model of 100 steps, none"},
        Row{"int4_g32", packed, false, 4, 100, 0,
            "train.patience of stage student may leave the model of 500 steps, none"},
        Row{"int4_g32", packed, false, 5, 100, 0, ""}, Row{"int4_g32", packed, false, 0, 100, 0, ""},
        Row{"int4_g32", packed, true, 0, 500, 0.5, "none of them on its grid (quantize.from_step 500)"},
        Row{"q4_0", "gguf", true, 0, 100, 0, ""}}) {
    Recipe recipe = pipeline();
    Stage& student = recipe.stages[2];
    student.get<DataOptions>().validation = "stage:text";
    student.get<QuantizeSection>().emplace().weights.grid = row.grid;
    student.get<QuantizeSection>()->from_step = 500;
    auto& train = student.get<train::TrainOptions>();
    train.keep_best = row.keep_best, train.patience = row.patience, train.validate_every = row.every;
    train.epochs = row.epochs;
    Stage out("export", "out");
    out.get<ModelOptions>().from = "stage:student";
    out.get<artifacts::ExportOptions>().format = row.format;
    recipe.stages.push_back(out);
    const std::string place = fmt::format("{} {} {} {}", row.format, row.keep_best, row.patience, row.every);
    if (*row.why == '\0')
      EXPECT_THAT(findings_of(recipe), IsEmpty()) << place;
    else
      EXPECT_THAT(findings_of(recipe),
                  ElementsAre(AllOf(HasSubstr("out export.format: "), HasSubstr(row.why))))
          << place;
  }
}

// Nor must its tensors: transformers has GPT-2's matrices as Conv1D.
TEST(ValidateExport, TrainedMatricesMustFitTheFile) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices = models::families().at("gpt2").defaults;
  recipe.stages[2].get<QuantizeSection>().emplace().weights.grid = "int8_row";
  Stage out("export", "out");
  out.get<ModelOptions>().from = "stage:student";
  out.get<artifacts::ExportOptions>().format = "compressed-tensors";
  recipe.stages.push_back(out);
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("out export.format: [compressed-tensors] "
                                                         "transformer.h.0.attn.c_attn.weight is no Linear")));
  recipe.stages[3].get<artifacts::ExportOptions>().format = "hf";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

TEST(ValidateExport, MethodsMustServeTheirGrids) {
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
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre(HasSubstr("weighs a search for scales of rows, and nvfp4 has a scale of the whole")));
}

TEST(ValidateExport, BytePatchModelsStayCheckpoints) {
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
TEST(ValidateExport, WhatAGgufCannotSayIsKnownAtOnce) {
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

TEST(ValidateExport, ATokenizerThatAGgufCannotName) {
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

TEST(ValidateExport, GridsFitTheWidths) {
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

TEST(ValidateExport, QuantizeStagesReadTextForTheirMethodAndWriteFilesThatHoldTheGrid) {
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

TEST(ValidateExport, AdaptersLieOnNoGrid) {
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
TEST(ValidateExport, AnExportMergesBeforeWhatFollows) {
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

TEST(ValidateExport, ExportTypesFitTheFormat) {
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

TEST(ValidateExport, RowsOfAnExportDivideIntoItsBlocks) {
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

}  // namespace retort::recipes
