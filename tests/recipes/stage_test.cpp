#include "recipes/stage.h"

#include <gmock/gmock.h>

#include "recipes/address.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stage_kind.h"
#include "recipes/stages/generate.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(Address, TellsStagesPresetsAndPaths) {
  EXPECT_EQ(stage_of("stage:text"), "text");
  EXPECT_EQ(preset_of("preset:llama3-8b"), "llama3-8b");
  EXPECT_FALSE(stage_of("runs/a").has_value());
  EXPECT_EQ(path_of("stage:text", "runs/a"), Path("runs/a/text"));
  EXPECT_EQ(path_of("shards", "runs/a"), Path("shards"));
  EXPECT_THROW(path_of("stage:text", ""), ConfigError);
}

TEST(Stage, HasTheSectionsOfItsKind) {
  Stage stage("generate", "sample");
  EXPECT_EQ(stage.get<GenerateOptions>().prompt, std::vector<std::string>{"In the beginning"});
  EXPECT_EQ(stage.find<DataOptions>(), nullptr);
  EXPECT_THROW(stage.get<DataOptions>(), InternalError);
  stage.get<ModelOptions>().from = "stage:model";
  const Stage copy = stage;
  stage.get<ModelOptions>().from.clear();
  EXPECT_EQ(copy.get<ModelOptions>().from, "stage:model") << "a stage is a value";
  EXPECT_THROW(Stage("grenerate"), ConfigError);
}

TEST(StageKinds, EachRowIsWhole) {
  for (const StageKind& kind : stage_kinds()) {
    EXPECT_NE(kind.run, nullptr) << kind.name;
    EXPECT_NE(kind.inputs, nullptr) << kind.name;
    EXPECT_FALSE(kind.doc.empty()) << kind.name;
    EXPECT_THAT(kind.figures, Not(IsEmpty())) << kind.name;
    EXPECT_THAT(kind.sections, Not(IsEmpty())) << kind.name;
  }
}

// A section is one section wherever it is taken.
TEST(StageKinds, SectionsOfOneNameHoldOneType) {
  for (const StageKind& kind : stage_kinds())
    for (const SectionKind& section : kind.sections) {
      const auto& all = all_sections();
      const auto known =
          std::find_if(all.begin(), all.end(), [&](auto& s) { return s.name == section.name; });
      ASSERT_NE(known, all.end()) << section.name;
      EXPECT_EQ(known->defaults.type(), section.defaults.type()) << kind.name << " " << section.name;
      EXPECT_EQ(known->doc, section.doc) << kind.name << " " << section.name;
    }
}

TEST(StageKinds, AThingHasMakers) {
  EXPECT_THAT(makers_of(Thing::kShards), ElementsAre("prepare", "answers"));
  EXPECT_THAT(makers_of(Thing::kModel), ElementsAre("train", "quantize", "export"));
  EXPECT_THAT(makers_of(Thing::kResult), Contains("evaluate"));
}

}  // namespace retort::recipes
