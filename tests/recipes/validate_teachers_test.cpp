#include "recipes/validate.h"

#include <gmock/gmock.h>

#include <functional>

#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "distill/capture.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/stages/train_check.h"
#include "tests/recipes/pipeline_recipe.h"
#include "tests/testing.h"
#include "train/train_options.h"

namespace retort::recipes {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What is beyond the tokenizer's ids is padding, in either.
TEST(ValidateTeachers, TeacherAndStudentKnowTheTextsVocabulary) {
  Recipe recipe = pipeline();
  recipe.stages[1].get<ModelOptions>().choices.vocabulary = 512;
  EXPECT_THAT(findings_of(recipe), IsEmpty());
  recipe.stages[1].get<ModelOptions>().choices.vocabulary = 128;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("teacher model.vocabulary: must be at least 256"),
                          HasSubstr("student distill.teacher.model: must be at least 256")));
}

TEST(ValidateTeachers, TeachersAreWhatTheirKindNeeds) {
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

TEST(ValidateTeachers, CachesAreOfTheTextAndTheTeacher) {
  Recipe recipe = pipeline();
  Stage labels("capture", "labels");
  recipe.stages.insert(recipe.stages.begin() + 2, labels);
  recipe.stages[3].get<DistillSection>()->teacher = {.kind = "cached", .cache = {"stage:labels"}};
  recipe.stages[3].get<DistillSection>()->losses = {{.fn = "sampled"}};
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

// Before the capture has run.
TEST(ValidateTeachers, CachesHoldWhatTheLossesRead) {
  Recipe recipe = pipeline();
  Stage labels("capture", "labels");
  labels.get<ModelOptions>().from = "stage:teacher";
  labels.get<DataOptions>().train = "stage:text";
  recipe.stages.insert(recipe.stages.begin() + 2, labels);
  auto& capture = recipe.stages[2].get<distill::CaptureOptions>();
  DistillOptions& distill = *recipe.stages[3].get<DistillSection>();
  distill.teacher = {.kind = "cached", .cache = {"stage:labels"}};
  const auto found = [&](distill::LossOptions loss) {
    distill.losses = {std::move(loss)};
    return findings_of(recipe);
  };
  const std::string place = "student distill.losses: loss 1: ";
  EXPECT_THAT(found({.fn = "sampled"}), IsEmpty());
  EXPECT_THAT(found({.fn = "cross_entropy"}), IsEmpty());
  EXPECT_THAT(found({.fn = "sampled", .draws = 50}), IsEmpty());
  EXPECT_THAT(found({.fn = "sampled", .draws = 8}),
              ElementsAre(place + "sampled: draws must be the cache's 50 or 0, got 8"));
  EXPECT_THAT(found({.fn = "forward_kl"}),
              ElementsAre(place + "forward_kl needs the teacher's whole distribution, got sampled labels"));
  EXPECT_THAT(found({.fn = "top_k_ghost"}),
              ElementsAre(place + "top_k_ghost needs top_k labels, got sampled"));
  EXPECT_THAT(found({.fn = "hidden_mse"}),
              ElementsAre(place + "hidden_mse needs a single live teacher with layers"));
  capture.temperature = 2;
  EXPECT_THAT(found({.fn = "sampled"}),
              ElementsAre(place + "sampled: temperature must be that of the teacher's labels, 2, got 1"));
  EXPECT_THAT(found({.fn = "sampled", .temperature = 2}), IsEmpty());
  capture = {.kind = "top_k", .k = 8};
  EXPECT_THAT(found({.fn = "sampled"}), ElementsAre(place + "sampled needs sampled labels, got top_k"));
  EXPECT_THAT(found({.fn = "top_k_ghost", .k = 8}), IsEmpty());
  EXPECT_THAT(found({.fn = "top_k_ghost", .k = 9}),
              ElementsAre(place + "top_k_ghost: k must be at most the cache's 8, got 9"));
}

TEST(ValidateTeachers, LossesOnLayersFitBothModels) {
  Recipe recipe = pipeline();
  DistillOptions& distill = *recipe.stages[2].get<DistillSection>();
  auto& teacher = recipe.stages[1].get<ModelOptions>().choices;
  auto& student = recipe.stages[2].get<ModelOptions>().choices;
  teacher.layers = 6, student.layers = 3;
  student.heads = teacher.heads = 4, student.kv_heads = teacher.kv_heads = 2;
  const auto found = [&](distill::LossOptions loss) {
    distill.losses = {std::move(loss)};
    return findings_of(recipe);
  };
  const std::string place = "student distill.losses: loss 1: ";
  EXPECT_THAT(found({.fn = "hidden_mse", .layers = {0, 2}, .teacher_layers = {1, 5}}), IsEmpty());
  EXPECT_THAT(found({.fn = "hidden_mse", .layers = {3}}),
              ElementsAre(place + "layers must lie in [0, 3), got 3"));
  EXPECT_THAT(found({.fn = "hidden_cosine", .layers = {2}, .teacher_layers = {6}}),
              ElementsAre(place + "teacher_layers must lie in [0, 6), got 6"));
  EXPECT_THAT(found({.fn = "hidden_mse", .layers = {0}, .teacher_layers = {0, 0}}),
              ElementsAre(place + "teacher_layers must name 1 layers, one for each of the student's, got 2"));
  EXPECT_THAT(found({.fn = "attention_relation"}), IsEmpty());
  EXPECT_THAT(found({.fn = "attention_relation", .relations = {"qk"}}),
              ElementsAre(HasSubstr("relations must be one of qq, kk, vv, got \"qk\"")));
  EXPECT_THAT(found({.fn = "attention_relation", .relations = {}}),
              ElementsAre(place + "relations must name at least one product"));
  EXPECT_THAT(found({.fn = "attention_relation", .relation_heads = 7}),
              ElementsAre(HasSubstr("relation_heads must divide both models' widths, got 7 for ")));
  teacher.context = 256, student.context = 512;
  recipe.stages[1].get<DataOptions>().sequence = 256;
  recipe.stages[2].get<DataOptions>().sequence = 512;
  EXPECT_THAT(found({.fn = "hidden_mse"}),
              ElementsAre(HasSubstr("reads a row as a whole: its context is 256 tokens, a row has 512")));
  EXPECT_THAT(found({.fn = "forward_kl"}), IsEmpty()) << "it reads long rows in windows";
  distill.teachers = {{distill.teacher}};
  distill.teacher = {};
  EXPECT_THAT(found({.fn = "hidden_mse"}),
              ElementsAre(place + "hidden_mse needs a single live teacher with layers"));
}

// A student that answers reads rows of prompt and answer, in a share of the steps or in all of them.
TEST(ValidateTeachers, LossesOnLayersFitRowsOfAnswers) {
  Recipe recipe = pipeline();
  DistillOptions& distill = *recipe.stages[2].get<DistillSection>();
  auto& teacher = recipe.stages[1].get<ModelOptions>().choices;
  auto& student = recipe.stages[2].get<ModelOptions>().choices;
  teacher.context = 128, student.context = 512;
  recipe.stages[1].get<DataOptions>().sequence = 128;
  distill.losses = {{.fn = "hidden_mse"}};
  struct Row {
    int64_t sequence;
    double share;
    int64_t prompt, tokens;
    const char* why;  // "": nothing
  };
  for (const Row& row : {Row{128, 0.5, 64, 64, ""}, Row{128, 0.5, 64, 65, "a row has 129 (on_policy.prompt"},
                         Row{128, 0.0, 64, 65, ""}, Row{256, 0.5, 64, 64, "a row has 256"},
                         Row{256, 1.0, 64, 64, ""}, Row{256, 1.0, 64, 65, "a row has 129 (on_policy.prompt"},
                         Row{256, 1.0, 200, 1000, "a row has 512 (on_policy.prompt"}}) {
    recipe.stages[2].get<DataOptions>().sequence = row.sequence;
    distill.on_policy =
        distill::OnPolicyOptions{.share = row.share, .prompt = row.prompt, .tokens = row.tokens};
    const std::vector<std::string> found = findings_of(recipe);
    if (*row.why == '\0')
      EXPECT_THAT(found, IsEmpty()) << row.share << " " << row.sequence << " " << row.tokens;
    else
      EXPECT_THAT(found, ElementsAre(HasSubstr(row.why)))
          << row.share << " " << row.sequence << " " << row.tokens;
  }
  distill.losses = {{.fn = "forward_kl"}};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it reads long rows in windows";
}

TEST(ValidateTeachers, OneLossWeighsAtLeast) {
  Recipe recipe = pipeline();
  auto& losses = recipe.stages[2].get<DistillSection>()->losses;
  losses[0].weight = 0;
  EXPECT_THAT(findings_of(recipe),
              ElementsAre(HasSubstr("student distill.losses: must have a weight > 0 in one loss at least")));
  losses[0].schedule = distill::WeightSchedule{.kind = "linear", .to = 1, .begin = 0, .end = 10};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it weighs later";
  losses[0].schedule->to = 0;
  EXPECT_THAT(findings_of(recipe), ElementsAre(HasSubstr("must have a weight > 0 in one loss at least, or")));
  auto& train = recipe.stages[2].get<train::TrainOptions>();
  losses[0].schedule = distill::WeightSchedule{.kind = "linear", .to = 1, .begin = 9, .end = 20};
  train.steps = 10, train.schedule.warmup = 0;
  EXPECT_THAT(
      findings_of(recipe),
      ElementsAre(HasSubstr("student distill.losses: must have a weight > 0 in one loss at least within "
                            "train.steps 10, or nothing is learned")));
  train.steps = 11;
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it weighs in the last step";
  train.steps = 10, train.epochs = 0.5;
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "how many steps epochs are is not known";
  train.steps = 1000, train.epochs = 0;
  losses[0].weight = 1;
  losses[0].schedule = distill::WeightSchedule{.kind = "linear", .to = 0, .begin = 0, .end = 1};
  EXPECT_THAT(findings_of(recipe), IsEmpty()) << "it weighs in the first step";
  losses[0].weight = 0;
  losses[0].schedule.reset();
  losses.push_back({.fn = "cross_entropy"});
  EXPECT_THAT(findings_of(recipe), IsEmpty());
}

TEST(ValidateTeachers, SeveralTeachersAreLiveAndWeigh) {
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

// What two stages make may be the same; bytes are nobody's pairs.
TEST(ValidateTeachers, AllReadOneTokenizer) {
  Recipe sound = pipeline();
  Stage words("tokenizer", "words"), tokens("prepare", "tokens");
  words.get<data::BpeTrainingOptions>().vocabulary = 300;
  tokens.get<data::PrepareOptions>().tokenizer = "stage:words";
  sound.stages.insert(sound.stages.begin(), {words, tokens});  // and text, teacher, student
  for (size_t i : {3, 4}) sound.stages[i].get<ModelOptions>().choices.vocabulary = 300;
  const auto found = [&](const std::function<void(Stage & teacher, Stage & student)>& spoil) {
    Recipe recipe = sound;
    spoil(recipe.stages[3], recipe.stages[4]);
    return findings_of(recipe);
  };
  const auto on_tokens = [](Stage& stage) { stage.get<DataOptions>().train = "stage:tokens"; };
  EXPECT_THAT(found([](Stage&, Stage&) {}), IsEmpty());
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) { on_tokens(teacher), on_tokens(student); }),
              IsEmpty());
  EXPECT_THAT(
      found([&](Stage& teacher, Stage&) { on_tokens(teacher); }),
      ElementsAre("student distill.teacher.model: must read tokenizer bytes, which stage:text is made with, "
                  "got stage:teacher, which reads stage:words; a teacher with bridge: bytes may"));
  EXPECT_THAT(
      found([&](Stage&, Stage& student) { on_tokens(student); }),
      ElementsAre("student distill.teacher.model: must read tokenizer stage:words, which stage:tokens is "
                  "made with, got stage:teacher, which reads bytes"));
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) {
                on_tokens(teacher);
                student.get<DistillSection>()->teacher.bridge = "bytes";
              }),
              IsEmpty());
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) {
                on_tokens(teacher), on_tokens(student);
                student.get<DistillSection>()->teacher.bridge = "bytes";
              }),
              ElementsAre("student distill.teacher.bridge: bytes needs a text of the tokenizer bytes, got "
                          "stage:tokens, which is made with stage:words"));
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) {
                on_tokens(teacher);
                student.get<DistillSection>()->losses = {{.fn = "cross_entropy"}};
              }),
              IsEmpty())
      << "no loss needs the teacher";
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) {
                on_tokens(teacher);
                student.get<DistillSection>().reset();
                student.get<ModelOptions>().from = "stage:teacher";
              }),
              ElementsAre("student model.from: must read tokenizer bytes, which stage:text is made with, got "
                          "stage:teacher, which reads stage:words"));
  EXPECT_THAT(found([&](Stage& teacher, Stage& student) {
                on_tokens(teacher);
                student.get<DistillSection>().reset();
                student.get<ModelOptions>().init.emplace().from = "stage:teacher";
              }),
              ElementsAre(HasSubstr("student model.init.from: must read tokenizer bytes")));
  EXPECT_THAT(
      found([&](Stage& teacher, Stage&) { teacher.get<DataOptions>().validation = "stage:tokens"; }),
      ElementsAre("teacher data.validation: stage:tokens was made with tokenizer stage:words, the text of "
                  "data.train with bytes"));
  EXPECT_THAT(
      found([&](Stage& teacher, Stage& student) {
        student.get<DistillSection>().reset();
        teacher.get<DataOptions>().train.clear();
        teacher.get<DataOptions>().mixture = {{"stage:text", 1}, {"stage:tokens", 1}};
      }),
      ElementsAre(HasSubstr("teacher data.mixture: stage:tokens was made with tokenizer stage:words")));
}

// Of a stage that only reads, too.
TEST(ValidateTeachers, WhoAnswersReadsTheTextsTokenizer) {
  for (const char* kind : {"capture", "answers"}) {
    Recipe recipe = pipeline();
    Stage tokens("prepare", "tokens"), reader(kind, "reader");
    tokens.get<data::PrepareOptions>().tokenizer = "bytes+stop";
    reader.get<ModelOptions>().from = "stage:teacher";
    reader.get<DataOptions>().train = "stage:text";
    reader.get<DataOptions>().isolate_documents = true;
    recipe.stages[0].get<data::PrepareOptions>().documents.prompt = {"p"};
    recipe.stages[0].get<data::PrepareOptions>().documents.response = "r";
    recipe.stages[1].get<ModelOptions>().choices.vocabulary = 300;
    recipe.stages.insert(recipe.stages.end(), {tokens, reader});
    EXPECT_THAT(findings_of(recipe), IsEmpty()) << kind;
    recipe.stages[1].get<DataOptions>().train = "stage:tokens";
    recipe.stages[2].get<DistillSection>().reset();
    std::swap(recipe.stages[1], recipe.stages[3]);
    EXPECT_THAT(
        findings_of(recipe),
        ElementsAre("reader model.from: must read tokenizer bytes, which stage:text is made with, got "
                    "stage:teacher, which reads bytes+stop"))
        << kind;
  }
}

TEST(ValidateTeachers, StudentsAreCutFromTeachersThatFit) {
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

}  // namespace retort::recipes
