#include "recipes/claim.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "recipes/print_section.h"
#include "recipes/read_recipe.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

std::string recipe_with(const std::string& claim) {
  return claim + R"(
run: { text: [/etc/passwd] }
stages:
  - { name: text, kind: prepare }
  - { name: small, kind: train, data: { train: stage:text } }
  - { name: large, kind: train, data: { train: stage:text } }
)";
}

std::string refusal(const std::string& claim) {
  try {
    parse_recipe(recipe_with(claim), "claim.yaml");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST(Claim, ReadsAndPrintsToItself) {
  const std::string text =
      recipe_with("claim: { seeds: [5], bars: [{ arm: large, against: small, of: ratio, value: 0.9 }] }");
  const Recipe recipe = parse_recipe(text, "claim.yaml");
  ASSERT_TRUE(recipe.claim);
  EXPECT_EQ(recipe.claim->bars.at(0).of, "ratio");
  const std::string printed = print_section(recipe);
  EXPECT_EQ(print_section(parse_recipe(printed, "printed.yaml")), printed);
}

TEST(Claim, ArmsAreStagesAndSeedsAreDistinct) {
  const std::string said = refusal("claim: { seeds: [1, 1], bars: [{ arm: larg, against: small }] }");
  EXPECT_THAT(said, HasSubstr("claim.seeds"));
  EXPECT_THAT(said, HasSubstr("did you mean \"large\""));
  EXPECT_THAT(refusal("claim: { shared: [small] }"),
              HasSubstr("stage \"small\" takes from \"text\", which must be shared too"));
  EXPECT_EQ(refusal("claim: { shared: [text, small] }"), "");
  EXPECT_THAT(refusal("claim: { figures: [bits_per_bite] }"), HasSubstr("did you mean \"bits_per_byte\"?"));
  EXPECT_THAT(refusal("claim: { arms: [text], figures: [kl] }"),
              HasSubstr("kl is no figure of text; known: train_"));
  EXPECT_THAT(refusal("claim: { bars: [{ arm: large, against: small, figure: los }] }"),
              HasSubstr("los is no figure of large"));
  EXPECT_THAT(refusal("claim: { bars: [{ arm: large, against: small, of: recovery }] }"),
              HasSubstr("reference"));
  EXPECT_THAT(refusal("claim: { bars: [{ arm: large, against: small, is: bigger }] }"), HasSubstr("one of"));
}

}  // namespace retort::recipes
