#include "recipes/validate.h"

#include <gmock/gmock.h>

#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_options.h"
#include "recipes/stages/train_check.h"
#include "tests/recipes/pipeline_recipe.h"
#include "tests/testing.h"

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
