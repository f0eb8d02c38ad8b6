#include "kernels/chunk_rows.h"

#include <gtest/gtest.h>

namespace retort::kernels {
namespace {

constexpr int64_t kMany = 1 << 20;

LogitShape shape(int64_t columns, std::vector<LogitShape::Side> teachers, bool on_device) {
  return {{columns, true}, std::move(teachers), true, on_device};
}

TEST(ChunkRows, OfTheCpuFollowTheVocabulary) {
  const auto rows = [](int64_t columns, int64_t of) { return shape(columns, {}, false).rows(of); };
  EXPECT_EQ(rows(256, kMany), 2048);
  EXPECT_EQ(rows(2048, kMany), 1024);
  EXPECT_EQ(rows(128256, kMany), 512);
  EXPECT_EQ(rows(128256, 100), 100);
  EXPECT_EQ(rows(128256, 0), 1);
}

TEST(ChunkRows, OfADeviceAreCappedByTheLogitsBytes) {
  const auto rows = [](int64_t columns, std::vector<LogitShape::Side> teachers) {
    return shape(columns, std::move(teachers), true).rows(kMany);
  };
  EXPECT_EQ(rows(50257, {}), 2048);
  EXPECT_EQ(rows(128256, {{128256, true}}), 2048);
  EXPECT_EQ(rows(151936, {}), 2048);
  EXPECT_EQ(rows(151936, {{151936, true}}), 1664) << "2^30 / (4 * 151936) = 1766";
  EXPECT_EQ(rows(262144, {}), 2048);
  EXPECT_EQ(rows(262144, {{262144, true}}), 1152) << "1024 would wait for memory";
  EXPECT_EQ(rows(151936, {{151936, true, true}}), 1152) << "f32 copies of both";
  EXPECT_EQ(shape(151936, {}, true).rows(100), 100);
  LogitShape f32{{65536, false}, {{65536, false}}, true, true};
  EXPECT_EQ(f32.rows(kMany), 2048);
  f32.teachers.push_back({65536, false});  // and a mixture
  EXPECT_EQ(f32.rows(kMany), 1152);
  f32.student.columns = 40960;
  EXPECT_EQ(f32.rows(kMany), 1152) << "2^30 / (4 * (40960 + 3 * 65536)) = 1129";
}

// As cuBLAS's fast kernels want them.
TEST(ChunkRows, OfADeviceTakeWholeRuns) {
  EXPECT_EQ(logit_row_elements(50257, true), 50304);
  EXPECT_EQ(logit_row_elements(50304, true), 50304);
  EXPECT_EQ(logit_row_elements(50257, false), 50257);
  LogitShape f32_copies = shape(50257, {{33, true}}, true);
  EXPECT_EQ(f32_copies.student_bytes(), 2 * 50304);
  EXPECT_EQ(f32_copies.teacher_bytes(), 2 * 64);
  f32_copies.teachers.push_back({65, false});
  EXPECT_EQ(f32_copies.student_bytes(), 6 * 50304);
  EXPECT_EQ(f32_copies.teacher_bytes(), 6 * 33 + 4 * 65 + 4 * 65) << "of a mixture they lie close";
}

TEST(ChunkRows, ProductsAreReadAsTheyAreWhereTheLossCan) {
  LogitShape one = shape(10, {{8, true}}, false);
  EXPECT_TRUE(one.as_they_are());
  EXPECT_EQ(one.student_bytes(), 20);
  EXPECT_EQ(one.teacher_bytes(), 16);
  const auto without = [&](auto change) {
    LogitShape other = one;
    change(other);
    EXPECT_FALSE(other.as_they_are());
    return other.student_bytes() + other.teacher_bytes();
  };
  EXPECT_EQ(without([](LogitShape& s) { s.in_place = false; }), 60 + 48);
  EXPECT_EQ(without([](LogitShape& s) { s.student.capped = true; }), 60 + 48);
  EXPECT_EQ(without([](LogitShape& s) { s.teachers[0].capped = true; }), 60 + 48);
  EXPECT_EQ(without([](LogitShape& s) { s.teachers[0].bf16 = false; }), 60 + 32);
  EXPECT_EQ(without([](LogitShape& s) { s.teachers.push_back({8, true}); }), 60 + 48 + 48 + 32);
}

}  // namespace
}  // namespace retort::kernels
