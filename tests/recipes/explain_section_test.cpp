#include "recipes/explain_section.h"

#include <gtest/gtest.h>

namespace retort::recipes {
namespace {

struct Item {
  double weight = 1.5;
  void describe(Section& s) { s.field("weight", weight, "how much", above(0.0)); }
};

struct Options {
  std::string name = "x";
  std::optional<Item> maybe;
  std::vector<Item> many;
  void describe(Section& s) {
    s.field("name", name, "who", one_of({"x", "y"}));
    s.optional("maybe", maybe, "or not");
    s.list("many", many, "several");
  }
};

}  // namespace

TEST(ExplainSection, DocumentsEveryKeyOnce) {
  std::vector<std::string> lines;
  for (const KeyDoc& row : explain_section<Options>())
    lines.push_back(fmt::format("{}|{}|{}|{}|{}", row.key, row.type, row.fallback, row.rule, row.doc));
  const std::vector<std::string> expected = {"name|text|x|one of x, y|who", "maybe|optional section|||or not",
                                             "maybe.weight|number|1.5|> 0|how much",
                                             "many[]|list of sections|||several",
                                             "many[].weight|number|1.5|> 0|how much"};
  EXPECT_EQ(lines, expected);
}

TEST(ExplainSection, LeavesOptionalsAsTheyWere) {
  Options options;
  ExplainSection section;
  options.describe(section);
  EXPECT_FALSE(options.maybe.has_value());
  EXPECT_TRUE(options.many.empty());
}

}  // namespace retort::recipes
