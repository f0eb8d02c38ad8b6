#include "recipes/machine.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace retort::recipes {
namespace {

// The name that begins each line, in order, and the text that follows it.
struct Described {
  std::vector<std::string> parts;
  std::map<std::string, std::string> text;
};
Described described(const CudaDriver& driver) {
  Described out;
  std::istringstream lines(describe_machine(driver));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_GT(line.size(), 9u) << line;
    out.parts.push_back(line.substr(0, line.find(' ')));
    out.text[out.parts.back()] = line.substr(std::min<size_t>(9, line.size()));
  }
  return out;
}

}  // namespace

// A line a part, in this order.
TEST(Machine, NamesTheDriverAndEveryGpu) {
  const Described two = described(
      {.missing = "",
       .version = 13020,
       .gpus = {
           {.name = "NVIDIA First", .memory = 80'000'000'000, .major = 9, .minor = 1, .multiprocessors = 132},
           {.name = "NVIDIA Second", .memory = 1'000'000, .major = 8, .minor = 0, .multiprocessors = 108}}});
  EXPECT_EQ(two.parts, (std::vector<std::string>{"cpu", "driver", "cuda:0", "cuda:1", "kernels", "nccl",
                                                 "mpi", "training"}));
  EXPECT_EQ(two.text.at("driver"), "CUDA up to 13.2");
  EXPECT_EQ(two.text.at("cuda:0"), "NVIDIA First, 80.00 GB, compute capability 9.1, 132 multiprocessors");
  EXPECT_EQ(two.text.at("cuda:1"), "NVIDIA Second, 1.0 MB, compute capability 8.0, 108 multiprocessors");
}

TEST(Machine, SaysWhyThereIsNoGpu) {
  const Described none = described({.missing = "libcuda.so.1 is not there"});
  EXPECT_EQ(none.parts, (std::vector<std::string>{"cpu", "cuda", "kernels", "nccl", "mpi", "training"}));
  EXPECT_EQ(none.text.at("cuda"), "libcuda.so.1 is not there");
  const Described old = described({.missing = "the driver is too old", .version = 12000});
  EXPECT_EQ(old.parts,
            (std::vector<std::string>{"cpu", "driver", "cuda", "kernels", "nccl", "mpi", "training"}));
  EXPECT_EQ(old.text.at("driver"), "CUDA up to 12.0");
  EXPECT_EQ(old.text.at("cuda"), "the driver is too old");
}

// Of this one, whatever it has.
TEST(Machine, IsDescribedByItsOwnDriver) {
  EXPECT_EQ(describe_machine(), describe_machine(probe_cuda_driver()));
}

}  // namespace retort::recipes
