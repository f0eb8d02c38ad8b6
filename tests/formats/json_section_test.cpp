#include "formats/json_section.h"

#include <gmock/gmock.h>

namespace retort::formats {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Inner {
  std::string kind = "a";
  void describe(Section& s) { s.field("kind", kind, "which", one_of({"a", "b"})); }
};

struct Outer {
  int64_t steps = 10;
  double lr = 0.1;
  bool on = false;
  std::vector<std::string> names = {"x"};
  std::vector<int64_t> sizes;
  std::vector<double> weights;
  Inner inner;
  std::optional<Inner> maybe;
  std::vector<Inner> many;
  void describe(Section& s) {
    s.field("steps", steps, "how many", at_least<int64_t>(1));
    s.field("lr", lr, "rate", above(0.0));
    s.field("on", on, "whether");
    s.field("names", names, "of it");
    s.field("sizes", sizes, "of them");
    s.field("weights", weights, "of all");
    s.section("inner", inner, "nested");
    s.optional("maybe", maybe, "absent by default");
    s.list("many", many, "several");
  }
};

Outer read(const char* text) { return section_from_json<Outer>(parse_json(text, "here"), "m.json: options"); }

}  // namespace

TEST(JsonSection, ComesBack) {
  Outer options;
  options.steps = int64_t{1} << 62;
  options.lr = 0.1 + 1e-16 * 3;
  options.on = true;
  options.names = {"a \"b\"", ""};
  options.sizes = {1, -2};
  options.weights = {1e-300, 3};
  options.inner.kind = "b";
  options.maybe.emplace();
  options.many = {{"b"}, {"a"}};
  const Json json = section_to_json(options);
  const Outer back = section_from_json<Outer>(parse_json(json.dump(1), "here"), "here");
  EXPECT_EQ(back.steps, options.steps);
  EXPECT_EQ(back.lr, options.lr);
  EXPECT_EQ(back.on, true);
  EXPECT_EQ(back.names, options.names);
  EXPECT_EQ(back.sizes, options.sizes);
  EXPECT_EQ(back.weights, options.weights);
  EXPECT_EQ(back.inner.kind, "b");
  EXPECT_TRUE(back.maybe.has_value());
  ASSERT_EQ(back.many.size(), 2u);
  EXPECT_EQ(back.many[0].kind, "b");
  EXPECT_EQ(section_to_json(back), json);
}

TEST(JsonSection, IsInTheOrderOfTheKeys) {
  EXPECT_EQ(
      section_to_json(Outer{}).dump(),
      R"({"steps":10,"lr":0.1,"on":false,"names":["x"],"sizes":[],"weights":[],"inner":{"kind":"a"},"many":[]})");
}

TEST(JsonSection, WhatIsMissingHasItsDefault) {
  const Outer options = read(R"({"steps": 3, "maybe": null})");
  EXPECT_EQ(options.steps, 3);
  EXPECT_EQ(options.lr, 0.1);
  EXPECT_EQ(options.names, std::vector<std::string>{"x"});
  EXPECT_EQ(options.inner.kind, "a");
  EXPECT_FALSE(options.maybe.has_value());
  EXPECT_EQ(read(R"({"lr": 2})").lr, 2.0);
}

TEST(JsonSection, NamesWhatIsWrong) {
  for (const auto& [text, why] :
       {std::pair{R"({"steps": 0})", "m.json: options: steps must be >= 1, got 0"},
        {R"({"steps": 1.5})", "steps must be an integer of 64 bits, got 1.5"},
        {R"({"steps": 9223372036854775808})", "steps must be an integer of 64 bits"},
        {R"({"steps": "3"})", "steps must be an integer of 64 bits, got \"3\""},
        {R"({"lr": true})", "lr must be a number, got true"},
        {R"({"on": 1})", "on must be true or false, got 1"},
        {R"({"names": "x"})", "names must be a list"},
        {R"({"sizes": [1, 2.5]})", "sizes must be a list of one type, got array"},
        {R"({"inner": 3})", "inner must be an object, got 3"},
        {R"({"inner": {"kind": "c"}})", "inner.kind must be one of a, b, got \"c\""},
        {R"({"inner": {"kin": "a"}})", "unknown key inner.kin; did you mean \"kind\"?"},
        {R"({"many": {}})", "many must be a list, got object"},
        {R"({"many": [{}, {"kind": 3}]})", "many[1].kind must be text, got 3"},
        {R"({"many": [3]})", "many[0] must be an object, got 3"},
        {R"({"step": 3})", "unknown key step; did you mean \"steps\"?"},
        {"[]", "m.json: options: must be an object, got array"}})
    EXPECT_THAT([text = text] { read(text); }, ThrowsMessage<DataError>(HasSubstr(why))) << text;
}

}  // namespace retort::formats
