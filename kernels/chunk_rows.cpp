#include "kernels/chunk_rows.h"

#include <algorithm>

namespace retort::kernels {

namespace {

constexpr int64_t kF32 = 4;

int64_t element_bytes(const LogitShape::Side& side, bool as_they_are) {
  return side.bf16 ? 2 + (as_they_are ? 0 : kF32) : kF32;
}

}  // namespace

int64_t logit_row_elements(int64_t columns, bool on_device) {
  constexpr int64_t kRun = 64;
  return on_device ? (columns + kRun - 1) / kRun * kRun : columns;
}

bool LogitShape::as_they_are() const {
  if (!in_place || student.capped || teachers.size() > 1) return false;
  return teachers.empty() || (!teachers.front().capped && teachers.front().bf16 == student.bf16);
}

int64_t LogitShape::student_bytes() const {
  return logit_row_elements(student.columns, on_device) * element_bytes(student, as_they_are());
}

int64_t LogitShape::teacher_bytes() const {
  const bool mixed = teachers.size() > 1;
  int64_t bytes = 0, widest = 0;
  for (const Side& side : teachers) {
    bytes += logit_row_elements(side.columns, on_device && !mixed) * element_bytes(side, as_they_are());
    widest = std::max(widest, side.columns);
  }
  return mixed ? bytes + kF32 * widest : bytes;
}

int64_t LogitShape::rows(int64_t of) const {
  const auto fitting = [](int64_t memory, int64_t row) { return memory / std::max<int64_t>(1, row); };
  constexpr int64_t kStep = 128, kMost = 2048;
  const int64_t rows =
      on_device
          ? std::clamp<int64_t>(fitting(int64_t{1} << 30, student_bytes() + teacher_bytes()) / kStep * kStep,
                                1152, kMost)
          : std::clamp<int64_t>(fitting(int64_t{8} << 20, kF32 * student.columns), 512, kMost);
  return std::min(rows, std::max<int64_t>(of, 1));
}

}  // namespace retort::kernels
