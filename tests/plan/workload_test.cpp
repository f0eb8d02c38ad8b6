#include "plan/workload.h"

#include <gtest/gtest.h>

#include "tests/plan/shapes.h"

namespace retort::plan {

TEST(ChunkRows, AreThoseOfTheLoss) {
  EXPECT_EQ(chunk_rows(256, 1 << 20), 2048);
  EXPECT_EQ(chunk_rows(2048, 1 << 20), 1024);
  EXPECT_EQ(chunk_rows(128256, 1 << 20), 512);
  EXPECT_EQ(chunk_rows(128256, 100), 100);
}

TEST(Workload, KnowsItsHeadAndItsTeachers) {
  models::DecoderSpec spec = llama3_8b();
  spec.tokens = 128000;
  const Workload work = workload_of(*shape(spec), {.rows = 2, .sequence = 8}, {.bf16 = true});
  EXPECT_EQ(work.head.columns, 128000);
  EXPECT_EQ(work.head.rows, 128256);
  EXPECT_FALSE(work.head.tied);
  EXPECT_EQ(work.tables, 8192.0 * 128 * 4);
  const TeacherLoad teacher = teacher_of(*shape(spec), true);
  EXPECT_NEAR(teacher.weights, 2.0 * 8'030'261'248, 1e7);
  EXPECT_NEAR(teacher_of(*shape(spec), false).weights, 4.0 * 8'030'261'248, 1e7);
}

}  // namespace retort::plan
