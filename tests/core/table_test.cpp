#include "core/table.h"

#include <gtest/gtest.h>

namespace retort {

TEST(Table, AlignsColumns) {
  EXPECT_EQ(markdown_table({{"stage", "bytes"}, {"teacher", "12"}}),
            "| stage   | bytes |\n"
            "|---------|------:|\n"
            "| teacher |    12 |\n");
}

TEST(Table, GroupsThousands) {
  EXPECT_EQ(grouped(7), "7");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(3540000), "3,540,000");
}

}  // namespace retort
