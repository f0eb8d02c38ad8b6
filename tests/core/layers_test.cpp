// The architecture, enforced: includes point one way (cmake/layers.txt), third-party headers stay at home,
// every header is touched by a test of its own room, and every test is built and run.
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
  std::map<std::string, int> level;                                  // of a room
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
      out.may_include[name] = rest, out.level[name] = std::stoi(first);
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

std::string from_root(const Path& path) {
  return std::filesystem::relative(path, testing::source_directory()).string();
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

// What stands between spaces and brackets in a folder's CMakeLists.txt, comments left out.
std::set<std::string> words_of_list(const Path& folder) {
  std::set<std::string> out;
  std::ifstream file(folder / "CMakeLists.txt");
  for (std::string line; std::getline(file, line);) {
    line.erase(std::min(line.find('#'), line.size()));
    for (char& c : line)
      if (c == '(' || c == ')') c = ' ';
    std::istringstream words(line);
    for (std::string word; words >> word;) out.insert(word);
  }
  return out;
}

// The names by which gtest knows the suites of a file: of those with parameters, the instances'.
std::set<std::string> suites_of(const Path& path) {
  std::set<std::string> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    for (const std::string_view macro : {"TEST(", "TEST_F(", "TYPED_TEST(", "INSTANTIATE_TEST_SUITE_P("})
      if (line.starts_with(macro)) out.insert(line.substr(macro.size(), line.find(',') - macro.size()));
  return out;
}

const std::set<std::string> kSources = {".h", ".cpp", ".cu", ".cuh"};

}  // namespace

TEST(Layers, EveryRoomExistsAndIncludesOnlyWhatStandsBelow) {
  const Layers layers = read_layers();
  ASSERT_EQ(layers.may_include.size(), 14u);
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

TEST(Layers, NoRoomStandsOnOneOfItsLevelOrAbove) {
  const Layers layers = read_layers();
  for (const auto& [room, below] : layers.may_include)
    for (const std::string& other : below) {
      ASSERT_TRUE(layers.level.contains(other)) << room << " includes " << other << ", which is no room";
      EXPECT_LT(layers.level.at(other), layers.level.at(room)) << room << " includes " << other;
    }
}

TEST(Layers, ThirdPartyHeadersStayInTheirHomes) {
  const Layers layers = read_layers();
  ASSERT_FALSE(layers.homes.empty());
  for (const auto& [room, below] : layers.may_include)
    for (const Path& path : files_below(testing::source_directory() / room, kSources)) {
      const std::string folder = from_root(path.parent_path());
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

// A pointer into a tensor that lives on a device is a crash on the host. Loops over memory are the business
// of kernels/ and formats/; others go through core/host_tensor.h, which refuses such tensors.
TEST(Layers, PointersOfTensorsStayInKernelsAndFormats) {
  const std::map<std::string, std::string> exceptions = {
      {"core/host_tensor.h", "the way for everybody else"},
      {"core/host_tensor.cpp", "the same"},
      {"comm/nccl_wire.cpp", "hands device memory to NCCL"},
      {"data/batch_stream.cpp", "fills batches, which are host tensors by definition"},
  };
  for (const auto& [room, below] : read_layers().may_include) {
    if (room == "kernels" || room == "formats") continue;
    for (const Path& path : files_below(testing::source_directory() / room, kSources)) {
      const std::string name = from_root(path);
      EXPECT_TRUE(exceptions.contains(name) || read_text(path).find("data_ptr") == std::string::npos)
          << name << " takes a pointer of a tensor";
    }
  }
  for (const auto& [name, reason] : exceptions)
    EXPECT_NE(read_text(testing::source_directory() / name).find("data_ptr"), std::string::npos)
        << name << " takes no pointer any more";
}

// Elsewhere it is "Success" sooner or later (core/errno_text.h).
TEST(Layers, OnePlaceAsksWhyTheSystemRefused) {
  for (const auto& [room, below] : read_layers().may_include)
    for (const Path& path : files_below(testing::source_directory() / room, kSources)) {
      if (from_root(path).starts_with("core/errno_text.")) continue;
      EXPECT_EQ(read_text(path).find("std::strerror("), std::string::npos) << from_root(path);
    }
}

TEST(Layers, EveryHeaderIsTouchedByATestOfItsRoom) {
  for (const auto& [room, below] : read_layers().may_include) {
    std::set<std::string> touched;
    for (const Path& path : files_below(testing::source_directory() / "tests" / room, {".cpp", ".h"}))
      for (const std::string& include : includes_of(path)) touched.insert(include);
    for (const Path& path : files_below(testing::source_directory() / room, {".h"}))
      EXPECT_TRUE(touched.contains(from_root(path)))
          << from_root(path) << " is included by no test of " << room;
  }
}

TEST(Layers, EveryTestFileIsBuilt) {
  for (const Path& path : files_below(testing::source_directory() / "tests", {".cpp"}))
    EXPECT_TRUE(words_of_list(path.parent_path()).contains(path.filename().string()))
        << from_root(path) << " is not in the CMakeLists.txt beside it";
}

// cmake/room.cmake leaves suites named Slow and Mpi out of the fast tests; others have to run them.
TEST(Layers, EverySuiteIsRun) {
  int apart = 0;
  for (const auto& [room, below] : read_layers().may_include) {
    const Path folder = testing::source_directory() / "tests" / room;
    const std::set<std::string> list = words_of_list(folder);
    for (const Path& path : files_below(folder, {".cpp"}))
      for (const std::string& suite : suites_of(path)) {
        const char* wanted = nullptr;
        if (suite.starts_with("Slow")) wanted = "SLOW";
        if (suite.starts_with("Mpi"))
          wanted = suite.starts_with("MpiEnds") ? suite.c_str() : "retort_mpi_test";
        if (wanted == nullptr) continue;
        EXPECT_TRUE(list.contains(wanted))
            << from_root(path) << ": " << suite << " wants " << wanted << " in the CMakeLists.txt beside it";
        ++apart;
      }
  }
  EXPECT_GT(apart, 5);
}

}  // namespace retort
