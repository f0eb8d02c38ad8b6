#include "recipes/yaml_section.h"

#include <gmock/gmock.h>

namespace retort::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Inner {
  std::string kind = "alpha";
  double weight = 1.0;
  void describe(Section& s) {
    s.field("kind", kind, "which", one_of({"alpha", "beta"}));
    s.field("weight", weight, "how much", above(0.0));
  }
};

struct Options {
  bool flag = false;
  int64_t steps = 7;
  double rate = 0.5;
  std::string name = "n";
  std::vector<std::string> files;
  std::vector<int64_t> sizes;
  Inner inner;
  std::optional<Inner> maybe;
  std::vector<Inner> many;
  void describe(Section& s) {
    s.field("flag", flag, "");
    s.field("steps", steps, "", at_least<int64_t>(1));
    s.field("rate", rate, "", above(0.0));
    s.field("name", name, "");
    s.field("files", files, "");
    s.field("sizes", sizes, "");
    s.section("inner", inner, "");
    s.optional("maybe", maybe, "");
    s.list("many", many, "");
  }
};

struct Read {
  Options options;
  std::vector<std::string> problems;
};

Read read(const std::string& text) {
  Read out;
  Problems problems;
  const Node root = parse_yaml(text, "a", problems);
  read_section(root, out.options, problems);
  for (const Problem& p : problems)
    out.problems.push_back(fmt::format("{}: {}: {}", p.mark.text(), p.key, p.text));
  return out;
}

std::string problem_of(const std::string& text) {
  const Read r = read(text);
  return r.problems.size() == 1 ? r.problems[0] : fmt::format("{} problems", r.problems.size());
}

}  // namespace

TEST(YamlSection, ReadsEveryType) {
  const Read r = read(
      "flag: true\nsteps: -0\nrate: 4e-3\nname: 010\nfiles: one.txt\nsizes: [1, 20]\n"
      "inner: {kind: beta}\nmaybe: {}\nmany: [{weight: 2}, {kind: beta}]\n");
  EXPECT_THAT(r.problems, ElementsAre("a:2:8: steps: must be an integer >= 1, got -0"));
  EXPECT_TRUE(r.options.flag);
  EXPECT_EQ(r.options.steps, 7);  // the default stays
  EXPECT_EQ(r.options.rate, 4e-3);
  EXPECT_EQ(r.options.name, "010");
  EXPECT_THAT(r.options.files, ElementsAre("one.txt"));
  EXPECT_THAT(r.options.sizes, ElementsAre(1, 20));
  EXPECT_EQ(r.options.inner.kind, "beta");
  EXPECT_TRUE(r.options.maybe.has_value());
  ASSERT_EQ(r.options.many.size(), 2u);
  EXPECT_EQ(r.options.many[0].weight, 2.0);
}

TEST(YamlSection, AbsentAndEmptyLeaveDefaults) {
  for (const char* text : {"", "inner:\n", "maybe: ~\n", "{}"}) {
    const Read r = read(text);
    EXPECT_THAT(r.problems, IsEmpty()) << text;
    EXPECT_FALSE(r.options.maybe.has_value());
    EXPECT_EQ(r.options.inner.kind, "alpha");
  }
}

TEST(YamlSection, IntegersAreStrict) {
  EXPECT_EQ(problem_of("steps: 010"), "a:1:8: steps: must be an integer >= 1, got 010");
  EXPECT_EQ(problem_of("steps: 3.0"), "a:1:8: steps: must be an integer >= 1, got 3.0");
  EXPECT_EQ(problem_of("steps: 1O"), "a:1:8: steps: must be an integer >= 1, got \"1O\"");
  EXPECT_EQ(problem_of("steps: 0x10"), "a:1:8: steps: must be an integer >= 1, got \"0x10\"");
  EXPECT_EQ(problem_of("steps: \"5\""), "a:1:8: steps: must be an integer >= 1, got \"5\"");
  EXPECT_EQ(problem_of("steps: 99999999999999999999"),
            "a:1:8: steps: must be an integer >= 1, got 99999999999999999999");
  EXPECT_EQ(problem_of("steps: 0"), "a:1:8: steps: must be an integer >= 1, got 0");
  EXPECT_EQ(problem_of("steps:"), "a:1:1: steps: must be an integer >= 1, got nothing");
  EXPECT_EQ(problem_of("steps: [1]"), "a:1:8: steps: must be an integer >= 1, got a list");
}

TEST(YamlSection, NumbersAndBooleansAreStrict) {
  EXPECT_EQ(problem_of("rate: ten"), "a:1:7: rate: must be a number > 0, got \"ten\"");
  EXPECT_EQ(problem_of("rate: inf"), "a:1:7: rate: must be a number > 0, got \"inf\"");
  EXPECT_EQ(problem_of("rate: -.nan"), "a:1:7: rate: must be a number > 0, got \"-.nan\"");
  EXPECT_EQ(problem_of("rate: 1e999"), "a:1:7: rate: must be a number > 0, got 1e999");
  EXPECT_EQ(problem_of("flag: yes"), "a:1:7: flag: must be true or false, got \"yes\"");
  EXPECT_EQ(problem_of("flag: \"true\""), "a:1:7: flag: must be true or false, got \"true\"");
  EXPECT_EQ(problem_of("name: ~"), "a:1:7: name: must be text, got nothing");
  EXPECT_EQ(problem_of("sizes: [1, x]"), "a:1:12: sizes.1: must be an integer, got \"x\"");
  EXPECT_EQ(problem_of("sizes: {a: 1}"), "a:1:8: sizes: must be a list, got a section");
}

TEST(YamlSection, NamesTheNearest) {
  EXPECT_EQ(problem_of("inner: {kind: alpa}"),
            "a:1:15: inner.kind: must be one of alpha, beta, got \"alpa\"; did you mean \"alpha\"?");
  EXPECT_EQ(problem_of("inner: {wieght: 1}"), "a:1:9: inner.wieght: unknown key; did you mean \"weight\"?");
  EXPECT_EQ(problem_of("inner: {zzz: 1}"), "a:1:9: inner.zzz: unknown key; known here: kind, weight");
  EXPECT_EQ(problem_of("stesp: 1"), "a:1:1: stesp: unknown key; did you mean \"steps\"?");
}

TEST(YamlSection, SectionsMustBeSections) {
  EXPECT_EQ(problem_of("inner: 3"), "a:1:8: inner: must be a section, keys with values, got 3");
  EXPECT_EQ(problem_of("maybe: [1]"), "a:1:8: maybe: must be a section, keys with values, got a list");
  EXPECT_EQ(problem_of("many: {kind: beta}"), "a:1:7: many: must be a list of sections, got a section");
  EXPECT_EQ(problem_of("many: [3]"), "a:1:8: many.0: must be a section, keys with values, got 3");
  EXPECT_EQ(problem_of("[1, 2]"), "a:1:1: : must be keys with values, got a list");
}

TEST(YamlSection, CollectsAll) {
  EXPECT_EQ(read("steps: x\nrate: -1\ninner: {kind: gamma}\nmany: [{weight: 0}, {wat: 1}]\nfoo: 1\n")
                .problems.size(),
            6u);
}

TEST(YamlSection, RefusedNodesAreJudgedOnce) {
  EXPECT_EQ(read("rate: &x 1.5\nsteps: *x\nsizes: [*x]\ninner: *x\n").problems.size(), 4u);
}

}  // namespace retort::recipes
