// The expected draws are CPython 3.11's.
#include "eval/python_random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace retort::eval {

using ::testing::ElementsAre;

TEST(PythonRandom, DrawsAsPythonDoes) {
  PythonRandom random(1234);
  for (const uint64_t expected : {4150886329u, 3342196574u, 1892932127u})
    EXPECT_EQ(static_cast<uint64_t>(random.bits()), expected);
  EXPECT_EQ(random.random(), 0.11685051774599753);
  std::vector<uint64_t> below;
  for (const uint64_t bound : {1u, 2u, 7u, 1000u, 1u << 31}) below.push_back(random.below(bound));
  EXPECT_THAT(below, ElementsAre(0, 0, 5, 709, 360511942));
  EXPECT_THAT(random.sample(10, 3), ElementsAre(1, 5, 3));
  EXPECT_THAT(random.sample(1000, 4), ElementsAre(17, 31, 807, 16));
  EXPECT_THAT(random.sample(1000, 20), ElementsAre(354, 663, 638, 495, 630, 474, 152, 93, 187, 730, 117, 865,
                                                   14, 515, 498, 901, 988, 255, 66, 683));
  EXPECT_THAT(random.sample(50, 8), ElementsAre(34, 29, 4, 38, 43, 5, 32, 37));
  std::vector<size_t> choices;
  for (int i = 0; i < 6; ++i) choices.push_back(random.choice(7));
  EXPECT_THAT(choices, ElementsAre(0, 5, 0, 2, 5, 1));
}

TEST(PythonRandom, SeedsOfOneWordAndOfTwo) {
  EXPECT_EQ(PythonRandom(0).bits(), 3626764237u);
  EXPECT_EQ(PythonRandom(1).bits(), 577090037u);
  EXPECT_EQ(PythonRandom((uint64_t{1} << 40) + 5).bits(), 2166296868u);
}

}  // namespace retort::eval
