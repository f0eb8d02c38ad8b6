#include "recipes/print_section.h"

#include <gtest/gtest.h>

#include "artifacts/printed_options.h"
#include "formats/json_section.h"
#include "recipes/yaml_section.h"

namespace retort::recipes {
namespace {

struct Item {
  std::string text = "plain";
  std::vector<double> numbers;
  void describe(Section& s) {
    s.field("text", text, "");
    s.field("numbers", numbers, "");
  }
};

struct Options {
  bool flag = true;
  double rate = 0.1;
  Item item;
  std::optional<Item> maybe;
  std::vector<Item> many, none;
  void describe(Section& s) {
    s.field("flag", flag, "");
    s.field("rate", rate, "");
    s.section("item", item, "");
    s.optional("maybe", maybe, "");
    s.list("many", many, "");
    s.list("none", none, "");
  }
};

}  // namespace

TEST(PrintSection, WritesBlockYaml) {
  Options options;
  options.many = {{"a b", {1, 0.5}}, {"true", {}}};
  EXPECT_EQ(print_section(options),
            "flag: true\nrate: 0.1\nitem:\n  text: plain\n  numbers: []\nmany:\n  - text: \"a b\"\n"
            "    numbers: [1, 0.5]\n  - text: \"true\"\n    numbers: []\nnone: []\n");
}

TEST(PrintSection, ReadsBackToTheSameStruct) {
  Options options;
  options.rate = 0.1 + 0.2;
  options.maybe = Item{"~", {1e-300, -2.5}};
  options.many = {{"quote\" back\\ line\n tab\t", {}},
                  {"", {}},
                  {"\xc3\xa9: # x", {}},
                  {"010", {}},
                  {"- a", {}},
                  {"a:", {}}};
  const std::string text = print_section(options);
  Problems problems;
  Options back;
  read_section(parse_yaml(text, "printed", problems), back, problems);
  ASSERT_TRUE(problems.empty()) << problems[0].text << "\n" << text;
  EXPECT_EQ(print_section(back), text);
  EXPECT_EQ(back.rate, options.rate);
  EXPECT_EQ(back.maybe->text, "~");
  for (size_t i = 0; i < options.many.size(); ++i) EXPECT_EQ(back.many[i].text, options.many[i].text);

  // The reader of older checkpoints, which knows no YAML beyond this.
  const formats::Json json = artifacts::parse_printed(text, "printed");
  EXPECT_EQ(print_section(formats::section_from_json<Options>(json, "printed")), text);
}

}  // namespace retort::recipes
