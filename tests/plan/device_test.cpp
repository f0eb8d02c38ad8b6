#include "plan/device.h"

#include <gmock/gmock.h>

namespace retort::plan {

TEST(Devices, HaveASourceForTheirNumbers) {
  for (const Device& device : devices()) {
    EXPECT_GT(device.memory, 1e8) << device.name;
    EXPECT_FALSE(device.source.empty()) << device.name;
    EXPECT_EQ(device.rate(true) > 0, !device.shared) << device.name;
    EXPECT_GT(device.share, 0) << device.name;
    EXPECT_LE(device.share, 1) << device.name;
  }
}

TEST(Devices, AnUnknownOneHasANearestName) {
  try {
    devices().at("h10");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("unknown device \"h10\"; did you mean \"h100\"?"));
  }
}

TEST(Devices, TheRanksOfACpuShareIt) {
  const Device cpu = measured_cpu(100, 300);
  EXPECT_DOUBLE_EQ(cpu.rate(false), 100e9);
  EXPECT_DOUBLE_EQ(cpu.rate(true), 300e9);
  EXPECT_DOUBLE_EQ(cpu.memory_of_rank(4), cpu.usable * cpu.memory / 4);
  EXPECT_DOUBLE_EQ(devices().at("h100").memory_of_rank(4), 72e9);
}

}  // namespace retort::plan
