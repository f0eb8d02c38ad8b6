#include "core/error.h"

#include <gtest/gtest.h>

namespace retort {

TEST(Error, CheckThrowsTheNamedErrorWithItsText) {
  EXPECT_NO_THROW(check(true, "unused {}", 1));
  try {
    check<DataError>(false, "[read] {} must be {}, got {}", "rows", 3, 4);
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[read] rows must be 3, got 4");
    EXPECT_EQ(error.code(), ExitCode::kBadData);
  }
}

TEST(Error, EveryKindHasItsExitCode) {
  EXPECT_EQ(static_cast<int>(ConfigError("").code()), 2);
  EXPECT_EQ(static_cast<int>(DataError("").code()), 65);
  EXPECT_EQ(static_cast<int>(CheckpointError("").code()), 65);
  EXPECT_EQ(static_cast<int>(ShapeError("").code()), 70);
  EXPECT_EQ(static_cast<int>(InternalError("").code()), 70);
  EXPECT_EQ(static_cast<int>(IoError("").code()), 74);
  EXPECT_EQ(static_cast<int>(CommError("").code()), 76);
  EXPECT_EQ(static_cast<int>(NonFiniteError("").code()), 77);
}

TEST(Error, AssertionNamesFileAndCondition) {
  try {
    RETORT_ASSERT(1 + 1 == 3);
    FAIL() << "did not throw";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("1 + 1 == 3"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("error_test.cpp"), std::string::npos);
  }
}

}  // namespace retort
