#include "recipes/machine.h"

#include <gmock/gmock.h>

#include <sstream>

namespace retort::recipes {

// A line a part, in this order; how many GPUs there are is the machine's affair.
TEST(Machine, NamesEveryPart) {
  std::vector<std::string> parts;
  std::istringstream lines(describe_machine());
  for (std::string line; std::getline(lines, line);) {
    ASSERT_GT(line.size(), 9u) << line;
    const std::string part = line.substr(0, line.find(' '));
    if (part != "driver" && !part.starts_with("cuda")) parts.push_back(part);
  }
  EXPECT_EQ(parts, (std::vector<std::string>{"cpu", "kernels", "nccl", "mpi", "training"}));
  EXPECT_THAT(describe_machine(), ::testing::ContainsRegex("cuda"));  // a GPU, or why there is none
}

}  // namespace retort::recipes
