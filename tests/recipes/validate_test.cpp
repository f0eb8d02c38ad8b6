#include "recipes/validate.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/file.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "models/family.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stages/generate.h"
#include "tests/recipes/pipeline_recipe.h"
#include "tests/testing.h"
#include "train/trainer.h"

namespace retort::recipes {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "the missing file is another finding";
}

TEST(Validate, BatchArithmeticFollowsTheRanks) {
  Recipe recipe = pipeline();
  EXPECT_THAT(findings_of(recipe, 8), IsEmpty());  // 16384 = 256 * 8 * 8
  EXPECT_THAT(findings_of(recipe, 3),
              ElementsAre(HasSubstr("256 * 8 * 3 = 6144, got 16384"), HasSubstr("* 3")));
  recipe.stages[1].get<ParallelOptions>().ranks = 5;
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("teacher data.batch_tokens")));
}

TEST(Validate, ARunThatMayGoBackKeepsTheCheckpoints) {
  Recipe recipe = pipeline();
  auto& train = recipe.stages[1].get<train::TrainOptions>();
  train.keep_checkpoints = 2, train.checkpoint_every = 50;
  train.guard = train::GuardOptions{.rollbacks = 1, .margin = 48};
  EXPECT_THAT(findings_of(recipe),
              ::testing::Contains(HasSubstr(
                  "teacher train.guard.margin: with max_skipped must be at most (keep_checkpoints - 1) * "
                  "checkpoint_every = 50")));
  train.guard->margin = 47;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  train.guard = train::GuardOptions{.margin = 48};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it never goes back";
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

TEST(Validate, SequencesFitTheContext) {
  Recipe recipe = pipeline();
  recipe.stages[2].get<ModelOptions>().choices.context = 128;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("student data.sequence: must be at most the model's context 128, got 256"));
}

TEST(Validate, ALimitLeavesARow) {
  Recipe recipe = pipeline();
  recipe.stages[1].get<DataOptions>().limit = 256;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[1].get<DataOptions>().limit = 255;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("teacher data.limit: must be 0 or at least a row's 256 tokens, got 255"));
}

TEST(Validate, GenerationBeginsWithWhatTheModelReads) {
  Recipe recipe = pipeline();
  Stage sample("generate", "sample");
  sample.get<ModelOptions>().from = "stage:student";
  recipe.stages[2].get<DataOptions>().sequence = 64;
  recipe.stages[2].get<ModelOptions>().choices.context = 64;
  recipe.stages.push_back(sample);
  auto& options = recipe.stages[3].get<GenerateOptions>();
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  options.prompt = {"a", "", std::string(65, 'b')};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("sample generate.prompt: \"\": a prompt must have at least one token",
                          HasSubstr("must fit the context of 64 tokens, got 65")));
  options.ids = {1, 255};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "they come instead of prompts";
  options.ids = {1, 256};
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("sample generate.ids: a prompt's ids must lie in [0, 256), got 256"));
  options.ids = {(int64_t{1} << 32) + 1};
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must lie in [0, 256), got 4294967297")));
  options.ids.assign(65, 1);
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must fit the context of 64 tokens, got 65")));
}

// Known of presets and files, through the stages that take a model from them.
TEST(Validate, APromptWantsAModelWithATokenizer) {
  const std::string rule = "sample generate.prompt: needs a model with a tokenizer, and ";
  Stage sample("generate", "sample");
  const auto findings_from = [&](const std::string& model, std::vector<Stage> before = {}) {
    sample.get<ModelOptions>().from = model;
    before.push_back(sample);
    return findings_of({{}, {}, before});
  };
  EXPECT_THAT(findings_from("preset:gpt2-124m"),
              ElementsAre(rule + "preset:gpt2-124m has none that is supported; generate.ids needs none"));
  EXPECT_THAT(validate({{}, {}, {sample}}, 0, /*alone=*/true), IsEmpty()) << "its model is opened at once";
  Stage out("export", "out");
  out.get<ModelOptions>().from = "preset:gpt2-124m";
  EXPECT_THAT(findings_from("stage:out", {out}), ::testing::Contains(HasSubstr(rule + "stage:out has none")));

  const testing::TemporaryDirectory directory;
  artifacts::ExportOptions plain;
  plain.format = "hf";
  plain.type = "f32";
  models::DecoderSpec spec = models::families().at("llama").defaults;
  spec.context = 64;
  spec.layers = 1;
  spec.width = spec.ffn_width = 32;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 16;
  const auto exported = [&](int64_t vocabulary) {
    spec.vocabulary = vocabulary;
    const Path folder = directory / fmt::format("hf{}", vocabulary);
    artifacts::export_model(artifacts::new_model(spec, 1, "new"), plain, folder, local_files());
    return folder.string();
  };
  EXPECT_THAT(findings_from(exported(256)), IsEmpty());
  const std::string folder = exported(300);
  EXPECT_THAT(findings_from(folder),
              ElementsAre(HasSubstr(rule + folder + " has none that is supported: " + folder)));
  sample.get<GenerateOptions>().ids = {1, 2};
  EXPECT_THAT(findings_from(folder), IsEmpty());
}

TEST(Validate, TextsHavePaths) {
  Recipe recipe = pipeline();
  Stage words("tokenizer", "words");
  recipe.stages.push_back(words);
  recipe.run.text = {"/etc/passwd", ""};
  const std::string rule = "must name text files, got an empty path as text ";
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("text run.text: " + rule + "2", "words run.text: " + rule + "2"));
  recipe.stages.pop_back();
  recipe.stages[0].get<data::PrepareOptions>().text = {""};
  EXPECT_THAT(findings_of(recipe), ElementsAre("text prepare.text: " + rule + "1"));
  recipe.stages[0].get<data::PrepareOptions>().text = {"/etc/passwd"};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "run.text is nobody's";
}

TEST(Validate, AStopTextIsNotEmpty) {
  Recipe recipe = pipeline();
  Stage sample("generate", "sample");
  sample.get<ModelOptions>().from = "stage:student";
  recipe.stages.push_back(sample);
  auto& stop = recipe.stages[3].get<GenerateOptions>().sampling.stop;
  stop = {"\n", "end"};
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  stop = {"\n", ""};
  EXPECT_THAT(findings_of(recipe), ElementsAre("sample generate.stop: a stop text must not be empty"));
}

// runs/NAME is below runs/.
TEST(Validate, ARunsNameIsNoPath) {
  Recipe recipe = pipeline();
  recipe.run.name = "gpt3-2.7b";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  for (const char* name : {"../../x", "a/b", "..", "."}) {
    recipe.run.name = name;
    EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr(" run.name: must be a name without /"))) << name;
  }
  recipe.run.name = "a/b";
  recipe.run.dir = "runs/a/b";  // as reading has it where nobody wrote another
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr(" run.name: must be a name without /")));
  recipe.run.dir = "runs/x";
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

TEST(Validate, ShapesAreJudgedByTheirOwner) {
  Recipe recipe = pipeline();
  recipe.stages[1].get<ModelOptions>().choices.kv_heads = 3;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre("teacher model.heads: must be a multiple of model.kv_heads, got 4 and 3"));
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
  std::ofstream(directory / "empty.txt") << "";
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  recipe = pipeline();
  recipe.run.text = {(directory / "empty.txt").string()};
  EXPECT_THAT(missing_files(recipe).at(0).text, HasSubstr("at least one byte, got the empty file"));
  recipe.run.text = {(directory / "pipe").string()};
  EXPECT_THAT(missing_files(recipe).at(0).text, HasSubstr("must be a file of text, got the pipe"));
  recipe = pipeline();
  recipe.run.text = {"/dev/null"};
  EXPECT_EQ(missing_files(recipe).at(0).text,
            "must be a file of text, got the pipe, socket or device /dev/null");
  recipe = pipeline();
  recipe.run.text = {std::string(5000, 'a')};
  EXPECT_THAT(missing_files(recipe).at(0).text, HasSubstr("File name too long"));
}

// Told at the start, not when the run cannot make it.
TEST(Validate, ARunsDirectoryCanBeMade) {
  const testing::TemporaryDirectory directory;
  const std::string file = (directory / "file").string();
  std::ofstream(file) << "text\n";
  Recipe recipe = pipeline();
  recipe.run.text = {file};
  const auto misfit = [&](const std::string& dir) {
    recipe.run.dir = dir;
    const std::vector<Finding> found = missing_files(recipe);
    return found.empty() ? "" : found.at(0).keys.at(0) + ": " + found.at(0).text;
  };
  EXPECT_EQ(misfit(directory.path().string()), "");
  EXPECT_EQ(misfit((directory / "new" / "run").string()), "");
  EXPECT_EQ(misfit("new/run"), "");
  EXPECT_EQ(misfit(""), "") << "its default comes later";
  EXPECT_EQ(misfit(file), "run.dir: must be a directory, got the file " + file);
  for (const char* below : {"/run", "/runs/run", "/", "/../run"})
    EXPECT_EQ(misfit(file + below),
              "run.dir: must be a directory, got " + file + below + ", and " + file + " is a file");
}

TEST(Validate, MissingFilesAreFound) {
  Recipe recipe = pipeline();
  recipe.run.text = {"/nowhere/a.txt"};
  recipe.stages[2].get<DistillSection>()->teacher.model = "/nowhere/teacher";
  std::vector<std::string> keys;
  for (const Finding& f : missing_files(recipe)) keys.push_back(f.stage + " " + f.keys[0]);
  EXPECT_THAT(keys, ElementsAre(" run.text", "student distill.teacher.model"));
}

TEST(Validate, AStageByItsBareNameIsKnown) {
  Recipe recipe = pipeline();
  Stage labels("capture", "labels");
  recipe.stages.insert(recipe.stages.begin() + 2, labels);
  recipe.stages[1].get<DataOptions>().train = "text";
  recipe.stages[3].get<DataOptions>().train = "labels";
  recipe.stages[3].get<DistillSection>()->teacher = {
      .kind = "cached", .model = "teacher", .cache = {"labels", "label"}};
  std::vector<std::string> said;
  for (const Finding& f : missing_files(recipe)) said.push_back(f.keys[0] + ": " + f.text);
  const std::string none = ": no such file or directory: ";
  EXPECT_THAT(said, ElementsAre("data.train" + none + "text; did you mean stage:text?",
                                "data.train" + none + "labels",  // which makes no text
                                "distill.teacher.model" + none + "teacher; did you mean stage:teacher?",
                                "distill.teacher.cache" + none + "labels; did you mean stage:labels?",
                                "distill.teacher.cache" + none + "label"));
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
