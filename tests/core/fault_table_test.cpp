// The table of faults in docs/reliability.md names the tests that hold its rows: they are there, and it has all of them.
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "core/file.h"
#include "tests/testing.h"

namespace retort {
namespace {

// "Suite.Test" of every match's two groups.
std::set<std::string> names_in(const std::string& text, const char* pattern) {
  const std::regex expression(pattern);
  std::set<std::string> out;
  for (std::sregex_iterator match(text.begin(), text.end(), expression), end; match != end; ++match)
    out.insert((*match)[1].str() + "." + (*match)[2].str());
  return out;
}

}  // namespace

TEST(FaultTable, HasTheTestsOfTheSources) {
  const Path root = testing::source_directory();
  std::set<std::string> tests;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root / "tests"))
    if (entry.path().extension() == ".cpp")
      tests.merge(names_in(read_text(entry.path()), R"(TEST(?:_[FP])?\((\w+),\s*(Fault\d\d\w+)\))"));
  const std::string page = read_text(root / "docs/reliability.md");
  const std::set<std::string> listed = names_in(page, R"(`(\w+)\.(Fault\d\d\w+)`)");
  EXPECT_GT(listed.size(), 20u);
  for (const std::string& name : listed) EXPECT_TRUE(tests.contains(name)) << name << " is not in tests/";
  for (const std::string& name : tests) EXPECT_TRUE(listed.contains(name)) << name << " is not in the table";

  // A test lies in the row of its number.
  const std::regex row(R"(\| (\d+) \|[^\n]*)"), number(R"(\.Fault(\d\d))");
  for (std::sregex_iterator line(page.begin(), page.end(), row), end; line != end; ++line) {
    const std::string text = line->str();
    for (std::sregex_iterator test(text.begin(), text.end(), number); test != end; ++test)
      EXPECT_EQ(std::stoi((*line)[1]), std::stoi((*test)[1])) << text;
  }
}

}  // namespace retort
