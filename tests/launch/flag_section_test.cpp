#include "launch/flag_section.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include "core/error.h"

namespace retort::launch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Options {
  bool fast = false;
  int64_t top_k = 3;
  double share = 0.5;
  std::string kind = "plain", hidden = "h";
  std::vector<std::string> names;
  std::vector<int64_t> sizes;
  struct Inner {
    int64_t depth = 1;
    void describe(Section& s) { s.field("depth", depth, "of the inner"); }
  } inner;
  void describe(Section& s) {
    s.field("fast", fast, "at once");
    s.field("top_k", top_k, "how many", at_least<int64_t>(1));
    s.field("share", share, "how much", between(0.0, 1.0));
    s.field("kind", kind, "which", one_of({"plain", "fancy"}));
    s.field("hidden", hidden, "no flag");
    s.field("names", names, "some");
    s.field("sizes", sizes, "some numbers");
    s.section("inner", inner, "has no flags");
  }
};

struct Parsed {
  Options options;
  CLI::App app;
  FlagSection flags{app, {}, {"hidden"}};
  explicit Parsed(std::vector<std::string> arguments) {
    options.describe(flags);
    std::reverse(arguments.begin(), arguments.end());
    app.parse(arguments);
    flags.verify();
  }
};

std::string error_of(const std::vector<std::string>& arguments) {
  try {
    Parsed parsed(arguments);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(FlagSection, KeysAreFlags) {
  const Options set = Parsed({"--fast", "--top-k", "7", "--share", "0.25", "--kind", "fancy", "--names",
                              "a b", "--names", "c", "--sizes", "1", "--sizes", "2"})
                          .options;
  EXPECT_TRUE(set.fast);
  EXPECT_EQ(set.top_k, 7);
  EXPECT_EQ(set.share, 0.25);
  EXPECT_EQ(set.kind, "fancy");
  EXPECT_THAT(set.names, ElementsAre("a b", "c"));
  EXPECT_THAT(set.sizes, ElementsAre(1, 2));
  const Options none = Parsed({}).options;
  EXPECT_EQ(none.top_k, 3);
  EXPECT_TRUE(none.names.empty());
}

TEST(FlagSection, HelpSaysDefaultAndRule) {
  const std::string help = Parsed({}).app.help();
  EXPECT_THAT(help, HasSubstr("--top-k"));
  EXPECT_THAT(help, HasSubstr("=3 "));
  EXPECT_THAT(help, HasSubstr("which (one of plain, fancy)"));
  EXPECT_THAT(help, ::testing::Not(HasSubstr("hidden")));
  EXPECT_THAT(help, ::testing::Not(HasSubstr("depth")));
}

TEST(FlagSection, RulesAreTheRecipes) {
  EXPECT_EQ(error_of({"--top-k", "0"}), "--top-k must be >= 1, got 0");
  EXPECT_EQ(error_of({"--share", "2"}), "--share must be in [0, 1], got 2");
  EXPECT_EQ(error_of({"--kind", "fanzy"}),
            "--kind must be one of plain, fancy, got fanzy; did you mean \"fancy\"?");
  EXPECT_THROW(Parsed({"--hidden", "x"}), CLI::ParseError);
}

}  // namespace retort::launch
