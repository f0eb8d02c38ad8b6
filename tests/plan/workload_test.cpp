#include "plan/workload.h"

#include <gtest/gtest.h>

#include "tests/plan/shapes.h"

namespace retort::plan {

TEST(ChunkRows, AreThoseOfTheLoss) {
  const auto rows = [](double columns, int64_t of) {
    Workload work;
    work.head.columns = columns;
    return logits_of(work).rows(of);
  };
  EXPECT_EQ(rows(256, 1 << 20), 2048);
  EXPECT_EQ(rows(2048, 1 << 20), 1024);
  EXPECT_EQ(rows(128256, 1 << 20), 512);
  EXPECT_EQ(rows(128256, 100), 100);
}

// On a device both models' logits count, without their padding; what is capped is made in f32 too.
TEST(ChunkRows, OnADeviceAreThoseOfBothModels) {
  Workload work;
  work.head.columns = 151936;
  work.bf16 = work.on_device = work.distills = true;
  EXPECT_EQ(logits_of(work).rows(1 << 20), 2048);
  work.teachers = {{.columns = 152064, .bf16 = true}};
  EXPECT_EQ(logits_of(work).rows(1 << 20), 1664);
  EXPECT_EQ(logits_of(work).student_bytes(), 2 * 151936);
  EXPECT_EQ(logits_of(work).teacher_bytes(), 2 * 151936);
  work.teachers.front().softcap = true;
  EXPECT_EQ(logits_of(work).rows(1 << 20), 1152);
  EXPECT_EQ(logits_of(work).teacher_bytes(), 6 * 151936);
  work.on_device = false;
  EXPECT_EQ(logits_of(work).rows(1 << 20), 512);
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
