#include "recipes/docs.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/file.h"
#include "recipes/recipe.h"
#include "recipes/shipped.h"
#include "tests/testing.h"

namespace retort::recipes {

using ::testing::HasSubstr;

TEST(Docs, RecipePageIsFresh) {
  EXPECT_EQ(read_text(testing::source_directory() / "docs" / "recipe.md"), recipe_docs())
      << "docs/recipe.md is stale: build/release/launch/retort recipe docs >docs/recipe.md";
}

TEST(Docs, ExplainsKeysSectionsAndTheTop) {
  EXPECT_THAT(explain_key("train.optimizer.lr"), HasSubstr("default: 0.001"));
  EXPECT_THAT(explain_key("train.optimizer"), HasSubstr("train.optimizer.weight_decay"));
  EXPECT_THAT(explain_key("distill.losses.temperature"), HasSubstr("rule: > 0"));
  EXPECT_THAT(explain_key(""), HasSubstr("quantize  (optional section)"));
  try {
    explain_key("train.optimiser.lr");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"train.optimizer.lr\"?"));
  }
}

TEST(Docs, ShippedRecipesAreTheFiles) {
  for (const std::string& name : shipped_names())
    EXPECT_EQ(find_shipped(name)->text, read_text(testing::source_directory() / "recipes" / (name + ".yaml")))
        << name;
  EXPECT_EQ(find_shipped("nothing"), nullptr);
}

// Every recipe in the folder is embedded.
TEST(Docs, NoRecipeIsForgotten) {
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(testing::source_directory() / "recipes"))
    files += entry.path().extension() == ".yaml";
  EXPECT_EQ(shipped_names().size(), files);
}

}  // namespace retort::recipes
