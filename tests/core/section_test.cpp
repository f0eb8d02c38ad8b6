#include "core/section.h"

#include <gtest/gtest.h>

namespace retort {
namespace {

struct Inner {
  std::string kind = "a";
  void describe(Section& s) { s.field("kind", kind, "which", one_of({"a", "b"})); }
};

struct Outer {
  int64_t steps = 10;
  double lr = 1.0;
  Inner inner;
  std::optional<Inner> maybe;
  std::vector<Inner> many;
  void describe(Section& s) {
    s.field("steps", steps, "how many", at_least<int64_t>(1));
    s.field("lr", lr, "rate", above(0.0));
    s.section("inner", inner, "nested");
    s.optional("maybe", maybe, "absent by default");
    s.list("many", many, "several");
  }
};

// Writes down what it walks over; sets steps; makes `maybe` present; two items in lists.
class Recorder final : public Section {
 public:
  std::vector<std::string> seen;

 private:
  void visit(Key key, Value value, const Check& check) override {
    if (key.name == "steps") *std::get<int64_t*>(value) = -1;
    const bool ok = !check.holds || check.holds();
    seen.push_back(fmt::format("{}{} {}", key.name, ok ? "" : "!", check.text));
  }
  bool enter(Key key) override {
    seen.push_back(fmt::format("{}(", key.name));
    return true;
  }
  bool enter_optional(Key key, bool& present) override {
    present = true;
    return enter(key);
  }
  void leave() override { seen.push_back(")"); }
  size_t enter_list(Key key, size_t) override {
    seen.push_back(fmt::format("{}[", key.name));
    return 2;
  }
  bool enter_item(size_t) override { return true; }
  void leave_list() override { seen.push_back("]"); }
};

}  // namespace

TEST(Section, WalksEveryKeyInOrderAndChecksTheValueNowThere) {
  Outer options;
  Recorder recorder;
  options.describe(recorder);
  const std::vector<std::string> expected = {
      "steps! >= 1", "lr > 0",           "inner(", "kind one of a, b", ")", "maybe(", "kind one of a, b", ")",
      "many[",       "kind one of a, b", ")",      "kind one of a, b", ")", "]"};
  EXPECT_EQ(recorder.seen, expected);
  EXPECT_TRUE(options.maybe.has_value());
  EXPECT_EQ(options.many.size(), 2u);
}

TEST(Rule, Choices) {
  const Rule<std::string> rule = one_of({"x", "y"});
  EXPECT_TRUE(rule.holds("y"));
  EXPECT_FALSE(rule.holds("z"));
  EXPECT_EQ(rule.text, "one of x, y");
  EXPECT_TRUE(between(0.0, 1.0).holds(1.0));
  EXPECT_FALSE(above<int64_t>(0).holds(0));
}

}  // namespace retort
