#include "recipes/docs.h"

#include <gmock/gmock.h>

#include <set>
#include <sstream>

#include "core/error.h"
#include "core/file.h"
#include "recipes/explain_section.h"
#include "recipes/read_recipe.h"
#include "recipes/recipe.h"
#include "recipes/shipped.h"
#include "recipes/task_files.h"
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

// Every recipe in the folder is embedded, and every description of a task.
TEST(Docs, NoRecipeIsForgotten) {
  size_t recipes = 0, tasks = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(testing::source_directory() / "recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    ++(entry.path().parent_path().filename() == "tasks" ? tasks : recipes);
  }
  EXPECT_EQ(shipped_names().size(), recipes);
  EXPECT_EQ(shipped_tasks().size(), tasks);
}

// A description is of a thing or an act: it begins with a noun or a verb.
TEST(Docs, DescriptionsBeginWithANounOrAVerb) {
  const std::set<std::string> refused = {
      "a",   "an", "and", "as", "at",   "by",  "for", "from", "how",  "in",    "is",    "it",   "its",
      "not", "of", "on",  "so", "that", "the", "to",  "what", "when", "where", "which", "with", "without"};
  for (const KeyDoc& row : explain_section<RecipeFile>()) {
    if (row.is_section() || row.key == "claim.bars[].says") continue;
    const std::string first = row.doc.substr(0, row.doc.find_first_of(" ,;:"));
    EXPECT_FALSE(refused.contains(first)) << row.key << ": " << row.doc;
    EXPECT_FALSE(row.doc.empty()) << row.key;
  }
}

// The recipe on README's first screen is one.
TEST(Docs, ReadmesRecipeHasNoProblems) {
  const std::string readme = read_text(testing::source_directory() / "README.md");
  const std::string fence = "```yaml\n";
  const size_t begin = readme.find(fence);
  ASSERT_NE(begin, std::string::npos);
  const std::string recipe =
      readme.substr(begin + fence.size(), readme.find("```", begin + fence.size()) - begin - fence.size());
  EXPECT_EQ(parse_recipe(recipe, "README.md", {"run.text=/etc/passwd"}).stages.size(), 8u);
}

namespace {

// The first table of a page, after `heading`.
std::string table_of(const std::string& page, const std::string& heading = "") {
  std::istringstream lines(page.substr(page.find(heading)));
  std::string out;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("|"))
      out += line + "\n";
    else if (!out.empty())
      break;
  return out;
}

}  // namespace

TEST(Docs, ReadmesResultsAreTheResultsPages) {
  const std::string readme = read_text(testing::source_directory() / "README.md"),
                    page = read_text(testing::source_directory() / "docs" / "results.md");
  ASSERT_THAT(readme, HasSubstr("## Results\n"));
  EXPECT_EQ(table_of(readme, "## Results\n"), table_of(page));
}

// A row names its recipe, which is shipped.
TEST(Docs, ResultsNameShippedRecipes) {
  std::istringstream rows(table_of(read_text(testing::source_directory() / "docs" / "results.md")));
  std::string row;
  for (int header = 0; header < 2; ++header) std::getline(rows, row);
  int count = 0;
  for (; std::getline(rows, row); ++count) {
    const size_t end = row.rfind('`'), begin = row.rfind('`', end - 1) + 1;
    EXPECT_NE(find_shipped(row.substr(begin, end - begin)), nullptr) << row;
  }
  EXPECT_GT(count, 8);
}

}  // namespace retort::recipes
