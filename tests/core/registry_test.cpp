#include "core/registry.h"

#include <gtest/gtest.h>

namespace retort {
namespace {

struct Row {
  std::string name;
  int value;
};

}  // namespace

TEST(Registry, FindsRowsInOrder) {
  const Registry<Row> table("thing", {{"one", 1}, {"two", 2}});
  EXPECT_EQ(table.at("two").value, 2);
  EXPECT_EQ(table.find("three"), nullptr);
  EXPECT_EQ(table.names(), (std::vector<std::string>{"one", "two"}));
}

TEST(Registry, UnknownNameListsTheKnownAndTheNearest) {
  const Registry<Row> table("optimizer", {{"adamw", 1}, {"muon", 2}});
  try {
    table.at("adamW");
    FAIL() << "did not throw";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "unknown optimizer \"adamW\"; did you mean \"adamw\"?; known: adamw, muon");
  }
}

TEST(Registry, RefusesDuplicates) {
  EXPECT_THROW(Registry<Row>("thing", {{"one", 1}, {"one", 2}}), InternalError);
}

}  // namespace retort
