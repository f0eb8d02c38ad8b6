// The architecture, enforced: includes point one way (cmake/layers.txt), third-party headers stay at home,
// every source has a test that touches its header, and every test file is built.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "core/file.h"
#include "tests/testing.h"

namespace retort {
namespace {

struct Layers {
  std::map<std::string, std::set<std::string>> may_include;          // room -> rooms
  std::vector<std::pair<std::string, std::set<std::string>>> homes;  // header prefix -> rooms or folders
};

Layers read_layers() {
  Layers out;
  std::ifstream file(testing::source_directory() / "cmake" / "layers.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string first, name, word;
    if (!(words >> first >> name)) continue;
    std::set<std::string> rest;
    while (words >> word) rest.insert(word);
    if (first == "home")
      out.homes.emplace_back(name, rest);
    else
      out.may_include[name] = rest;
  }
  return out;
}

std::vector<Path> files_below(const Path& folder, const std::set<std::string>& extensions) {
  std::vector<Path> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && extensions.contains(entry.path().extension().string()))
      out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> includes_of(const Path& path) {
  constexpr std::string_view kDirective = "#include";
  std::vector<std::string> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::erase_if(line, [](char c) { return c == ' ' || c == '\t'; });
    if (!line.starts_with(kDirective)) continue;
    const size_t begin = kDirective.size() + 1, end = line.find_first_of("\">", begin);
    if (end != std::string::npos) out.push_back(line.substr(begin, end - begin));
  }
  return out;
}

const std::set<std::string> kSources = {".h", ".cpp", ".cu", ".cuh"};

}  // namespace

TEST(Layers, EveryRoomExistsAndIncludesOnlyWhatStandsBelow) {
  const Layers layers = read_layers();
  ASSERT_EQ(layers.may_include.size(), 12u);
  for (const auto& [room, below] : layers.may_include) {
    const Path folder = testing::source_directory() / room;
    ASSERT_TRUE(std::filesystem::is_directory(folder)) << room;
    for (const Path& path : files_below(folder, kSources))
      for (const std::string& include : includes_of(path)) {
        const std::string top = include.substr(0, include.find('/'));
        if (top == room || !layers.may_include.contains(top) || top == include) continue;
        EXPECT_TRUE(below.contains(top)) << path << " includes " << include;
      }
  }
}

TEST(Layers, ThirdPartyHeadersStayInTheirHomes) {
  const Layers layers = read_layers();
  ASSERT_FALSE(layers.homes.empty());
  for (const auto& [room, below] : layers.may_include)
    for (const Path& path : files_below(testing::source_directory() / room, kSources)) {
      const std::string folder =
          std::filesystem::relative(path.parent_path(), testing::source_directory()).string();
      for (const std::string& include : includes_of(path))
        for (const auto& [prefix, homes] : layers.homes)
          if (include.starts_with(prefix)) {
            EXPECT_TRUE(homes.contains(room) || homes.contains(folder)) << path << " includes " << include;
          }
    }
}

TEST(Layers, NoCudaSourceIncludesLibTorch) {
  for (const Path& path : files_below(testing::source_directory() / "kernels", {".cu", ".cuh"}))
    for (const std::string& include : includes_of(path))
      EXPECT_FALSE(include.starts_with("ATen/") || include.starts_with("torch/") ||
                   include.starts_with("c10/"))
          << path << " includes " << include;
}

TEST(Layers, EveryHeaderIsTouchedByATestOfItsRoom) {
  const Layers layers = read_layers();
  std::map<std::string, std::set<std::string>> included_by_tests;  // room of the test -> headers
  for (const auto& [room, below] : layers.may_include)
    for (const Path& path : files_below(testing::source_directory() / "tests", {".cpp", ".h"}))
      for (const std::string& include : includes_of(path)) included_by_tests[room].insert(include);
  for (const auto& [room, below] : layers.may_include)
    for (const Path& path : files_below(testing::source_directory() / room, {".h"})) {
      const std::string header = std::filesystem::relative(path, testing::source_directory()).string();
      EXPECT_TRUE(included_by_tests[room].contains(header)) << header << " is included by no test";
    }
}

TEST(Layers, EveryTestFileIsBuilt) {
  for (const Path& path : files_below(testing::source_directory() / "tests", {".cpp"})) {
    std::string lists;
    for (Path folder = path.parent_path(); folder != testing::source_directory();
         folder = folder.parent_path())
      if (const Path list = folder / "CMakeLists.txt"; std::filesystem::exists(list)) {
        std::ifstream file(list);
        lists += std::string(std::istreambuf_iterator<char>(file), {});
      }
    EXPECT_NE(lists.find(path.filename().string()), std::string::npos) << path << " is in no CMakeLists.txt";
  }
}

}  // namespace retort
