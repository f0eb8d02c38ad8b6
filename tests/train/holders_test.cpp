#include "train/holders.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <sstream>

#include "core/error.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/memory_use.h"

namespace retort::train {
namespace {

uint64_t bytes_of(const std::vector<Holder>& holders, const std::string& what) {
  for (const Holder& one : holders)
    if (one.what == what) return one.bytes;
  return 0;
}

// The cells of a table's lines, by the first.
std::map<std::string, std::vector<std::string>> cells_of(const std::string& table) {
  std::map<std::string, std::vector<std::string>> out;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> cells;
    std::istringstream in(line);
    for (std::string cell; std::getline(in, cell, '|');) {
      const size_t begin = cell.find_first_not_of(' ');
      if (begin != cell.npos) cells.push_back(cell.substr(begin, cell.find_last_not_of(' ') - begin + 1));
    }
    if (!cells.empty()) out[cells[0]] = cells;
  }
  return out;
}

// Rows add up to the most that was in use, and what is free is told.
TEST(Holders, ATableAddsUp) {
  const std::vector<Holder> holders = {{"optimizer", 4000}, {"weights", 2000}};
  const auto cells = cells_of(table_of(holders, MemoryUse{9000, 20000, 30000, 90000}));
  const auto of = [&](const char* what) { return cells.at(what).at(1) + " " + cells.at(what).at(2); };
  EXPECT_EQ(of("optimizer"), "4.0 kB 20.0 %");
  EXPECT_EQ(of("weights"), "2.0 kB 10.0 %");
  EXPECT_EQ(of("other"), "3.0 kB 15.0 %") << "in use between steps, and nobody's";
  EXPECT_EQ(of("activations"), "11.0 kB 55.0 %") << "the peak without the rest";
  EXPECT_EQ(of("all"), "20.0 kB 100.0 %") << "the peak";
  EXPECT_EQ(of("free of 90.0 kB"), "30.0 kB -");
  // What is freed between steps and known all the same does not make rows negative.
  const auto less = cells_of(table_of(holders, MemoryUse{1000, 7000, 30000, 90000}));
  EXPECT_EQ(less.at("other").at(1), "0 B");
  EXPECT_EQ(less.at("activations").at(1), "1.0 kB");
  EXPECT_EQ(less.at("all").at(1), "7.0 kB");
  const auto unknown = cells_of(table_of(holders, {}));
  EXPECT_EQ(unknown.at("all").at(1), "6.0 kB");
  EXPECT_EQ(unknown.at("free").at(1), "unknown");
  EXPECT_FALSE(unknown.contains("other"));
}

// As a kernel and a control group would write them.
TEST(Holders, WhatIsFreeOnAHostIsRead) {
  const testing::TemporaryDirectory root;
  const auto write = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  };
  EXPECT_FALSE(memory_use(at::kCPU, root.path()));
  write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:    1 kB\nMemAvailable:    400 kB\n");
  write("proc/self/status", "VmPeak:  900 kB\nVmHWM:     70 kB\nVmRSS:     50 kB\n");
  const auto expect = [&](uint64_t free, uint64_t total) {
    const auto use = memory_use(at::kCPU, root.path());
    ASSERT_TRUE(use);
    EXPECT_EQ(use->now, 50u * 1024);
    EXPECT_EQ(use->peak, 70u * 1024);
    EXPECT_EQ(use->free, free * 1024);
    EXPECT_EQ(use->total, total * 1024);
  };
  expect(400, 1000);
  write("sys/fs/cgroup/memory.max", "max\n");
  write("sys/fs/cgroup/memory.current", "81920\n");
  expect(400, 1000);
  write("sys/fs/cgroup/memory.max", "204800\n");  // 200 KiB, 80 of them in use
  expect(120, 200);
  write("sys/fs/cgroup/memory.current", "999999\n");
  expect(0, 200);
  const auto own = memory_use(at::kCPU);
  ASSERT_TRUE(own);
  EXPECT_GT(own->now, 0u);
  EXPECT_GE(own->peak, own->now);
  EXPECT_GT(own->free, 0u);
  EXPECT_GE(own->total, own->free);
}

// Errors of memory name what was done and what there is; others go on as they are.
TEST(Holders, AreNamedWhereMemoryIsRefused) {
  const auto doing = [](const std::function<void()>& work) {
    name_holders(
        "step 4", at::kCPU,
        [] {
          return std::vector<Holder>{{"weights", 2000, "less of them"}};
        },
        "do less", work);
  };
  EXPECT_NO_THROW(doing([] {}));
  EXPECT_THROW(doing([] { throw DataError("another"); }), DataError);
  EXPECT_THROW(doing([] { throw std::logic_error("another"); }), std::logic_error);
  try {
    doing([] { throw std::bad_alloc(); });
    ADD_FAILURE() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                ::testing::ContainsRegex("step 4: out of memory .*weights 2.0 kB; .* of .* are free.* "
                                         "do less; weights: less of them"));
  }
}

TEST(Holders, AreTheTensorsThatAreThere) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    TinyModel tiny;
    models::bind_working(tiny.model.parameters(), tiny.map, dtype);
    const auto comm = comm::make_self_comm();
    const auto objective = make_cross_entropy();
    const auto optimizer = make_optimizer({}, tiny.model.parameters());
    const std::vector<Holder> holders = holders_of({tiny.model, tiny.map, *objective, *optimizer, *comm}, 4);
    uint64_t matrices = 0, all = 0;
    for (const models::Parameter& p : tiny.model.parameters().unique()) {
      all += static_cast<uint64_t>(p.numel());
      if (p.working.scalar_type() == at::kBFloat16) matrices += static_cast<uint64_t>(p.numel());
    }
    EXPECT_EQ(bytes_of(holders, "weights"), 4 * all);
    EXPECT_EQ(bytes_of(holders, "working"), 2 * matrices) << "one that is the master itself counts once";
    EXPECT_EQ(bytes_of(holders, "optimizer"), 8 * all + 8) << "two moments and a count";
    EXPECT_EQ(bytes_of(holders, "gradients"), 2 * 4 * all) << "four micro-batches are one subtree";
    EXPECT_TRUE(std::ranges::is_sorted(holders, std::greater(), &Holder::bytes));
    EXPECT_THAT(text_of(holders), ::testing::StartsWith(holders[0].what + " "));
  }
}

TEST(Holders, ARefusalOfMemoryIsKnown) {
  EXPECT_EQ(refusal_of_memory(std::bad_alloc()), "the system gives no more memory");
  try {
    at::empty({int64_t{1} << 50});
    ADD_FAILURE() << "a petabyte";
  } catch (const std::exception& error) {
    EXPECT_THAT(refusal_of_memory(error), ::testing::HasSubstr("allocate"));
  }
  try {
    at::ones({2}).add(at::ones({3}));
  } catch (const std::exception& error) {
    EXPECT_EQ(refusal_of_memory(error), "");
  }
}

}  // namespace
}  // namespace retort::train
