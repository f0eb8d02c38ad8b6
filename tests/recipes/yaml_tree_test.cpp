#include "recipes/yaml_tree.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> problems_of(const std::string& text) {
  Problems problems;
  parse_yaml(text, "a.yaml", problems);
  std::vector<std::string> out;
  for (const Problem& p : problems) out.push_back(fmt::format("{}: {}", p.mark.text(), p.text));
  return out;
}

Node parsed(const std::string& text, const std::string& source = "a.yaml") {
  Problems problems;
  Node node = parse_yaml(text, source, problems);
  EXPECT_TRUE(problems.empty()) << problems[0].text;
  return node;
}

}  // namespace

TEST(YamlTree, ScalarsGoByTheirPaths) {
  const std::map<std::string, std::string> expected = {
      {"a", "1"}, {"b.c[0]", "x"}, {"b.c[1]", "y"}, {"stages.one.d", "2"}, {"stages.one.name", "one"}};
  EXPECT_EQ(scalars_of(parsed("a: 1\nb: { c: [x, y], e: {} }\nstages:\n  - { name: one, d: 2 }\n")),
            expected);
}

TEST(YamlTree, KeepsTextOrderMarksAndPaths) {
  const Node root = parsed("a: 010\nb:\n  - {name: x, c: \"no\"}\n  - 7\n");
  EXPECT_EQ(root.at("a")->scalar, "010");
  EXPECT_EQ(root.at("a")->mark.text(), "a.yaml:1:4");
  EXPECT_EQ(root.at("b.x.c")->mark.text(), "a.yaml:3:18");
  EXPECT_EQ(root.at("b.x.c")->name_mark.text(), "a.yaml:3:15");
  EXPECT_TRUE(root.at("b.x.c")->quoted);
  EXPECT_EQ(root.at("b.x.c")->path, "b.x.c");
  EXPECT_EQ(root.at("b.1")->scalar, "7");
  EXPECT_EQ(root.at("b.y"), nullptr);
}

TEST(YamlTree, Fault36WhatIsTreacherousIsRefused) {
  EXPECT_THAT(problems_of("a: 1\nb: 2\na: 3\n"), ElementsAre("a.yaml:3:1: duplicate key; first in line 1"));
  EXPECT_THAT(problems_of("a: &x 1\nb: *x\n"),
              ElementsAre("a.yaml:1:4: anchors are not allowed",
                          "a.yaml:2:4: aliases are not allowed; write the value out, or use base:"));
  EXPECT_THAT(problems_of("a: !!int 3\n"), ElementsAre(HasSubstr("tags are not allowed")));
  EXPECT_THAT(problems_of("a: 1\n---\nb: 2\n"),
              ElementsAre("a.yaml: must be one YAML document, got several"));
  EXPECT_THAT(problems_of("a: [1, 2\n"), ElementsAre(HasSubstr("not YAML")));
  EXPECT_THAT(problems_of("{a: 1}: 2\n"), ElementsAre(HasSubstr("a key must be a name")));
  EXPECT_THAT(problems_of(std::string(100, '[') + std::string(100, ']')),
              ElementsAre(HasSubstr("nested deeper than 32")));
  EXPECT_THAT(problems_of(std::string(5000, '[')), ElementsAre(HasSubstr("nested deeper than 32")));
  EXPECT_THAT(problems_of(std::string(kLargestYaml + 1, ' ')),
              ElementsAre(HasSubstr("must be at most 1048576 bytes")));
  // A cyclic alias, and the bomb that is exponential to walk.
  EXPECT_THAT(problems_of("a: &x [*x]\n").size(), 2u);
}

TEST(YamlTree, ProblemsAreSortedAndSaidOnce) {
  Problems problems = {
      {{"b", 3, 1}, "k", "second"}, {{"b", 1, 1}, "", "first"}, {{"b", 3, 1}, "k", "second"}};
  try {
    raise_if_any(problems);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "2 problems\nb:1:1: first\nb:3:1: k: second");
    EXPECT_EQ(error.code(), ExitCode::kUsage);
  }
  EXPECT_NO_THROW(raise_if_any({}));
}

TEST(YamlTree, OverlayMergesMapsAndKeepsMarks) {
  const Node merged = overlay(parsed("a: {x: 1, y: 2}\nl: [1, 2]\nz: 1\n", "below"),
                              parsed("a: {y: 3}\nl: [4]\nz: ~\n", "above"));
  EXPECT_EQ(merged.at("a.x")->mark.source, "below");
  EXPECT_EQ(merged.at("a.y")->scalar, "3");
  EXPECT_EQ(merged.at("a.y")->mark.source, "above");
  EXPECT_EQ(merged.at("l")->children.size(), 1u);
  EXPECT_EQ(merged.at("z")->kind, Node::Kind::kNull);
}

TEST(YamlTree, SetReachesSectionsAndNamedItems) {
  Node root = parsed("train: {steps: 1}\nstages: [{name: a, kind: train}]\n");
  Problems problems;
  set_value(root, "train.steps=5", problems);
  set_value(root, "stages.a.train.steps=6", problems);
  set_value(root, "run.text=[x, y]", problems);
  set_value(root, "run.name=a=b", problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(root.at("train.steps")->scalar, "5");
  EXPECT_EQ(root.at("train.steps")->mark.text(), "--set train.steps");
  EXPECT_EQ(root.at("stages.a.train.steps")->scalar, "6");
  EXPECT_EQ(root.at("run.text")->children.size(), 2u);
  EXPECT_EQ(root.at("run.name")->scalar, "a=b");

  set_value(root, "stages.b.train.steps=6", problems);
  set_value(root, "nonsense", problems);
  set_value(root, "a=[1", problems);
  ASSERT_EQ(problems.size(), 3u);
  EXPECT_EQ(problems[0].text, "there is no \"b\" in stages");
  EXPECT_EQ(problems[1].mark.text() + ": " + problems[1].text, "--set nonsense: must be key=value");
  EXPECT_THAT(problems[2].text, HasSubstr("not YAML"));
}

// A comment is a recipe's; on the command line a "#" belongs to the value, or is refused.
TEST(YamlTree, SetHasNoComments) {
  const std::pair<const char*, const char*> kept[] = {
      {"a # b", "a # b"},           {"#fff", "#fff"},       {"  x #", "x #"}, {"a#b", "a#b"},
      {"it's # one", "it's # one"}, {"\"a # b\"", "a # b"}, {"'#'", "#"},     {"5 # five", "5 # five"}};
  for (const auto& [text, value] : kept) {
    Node root = parsed("run: {name: x}\n");
    Problems problems;
    set_value(root, std::string("run.name=") + text, problems);
    EXPECT_TRUE(problems.empty()) << text;
    EXPECT_EQ(root.at("run.name")->scalar, value) << text;
  }
  for (const char* refused : {"[a, b] # c", "\"a\" # b", "[a, b # c]"}) {
    Node root = parsed("run: {name: x}\n");
    Problems problems;
    set_value(root, std::string("run.name=") + refused, problems);
    EXPECT_FALSE(problems.empty()) << refused;
  }
}

}  // namespace retort::recipes
