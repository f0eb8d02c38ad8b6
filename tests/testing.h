// What every test may use: temporary directories, the shared test data, and comparisons that say where.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "core/file.h"

namespace retort::testing {

// A fresh directory that goes with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  Path operator/(std::string_view name) const { return path_ / name; }
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// The number of threads that LibTorch computes with while the object lives. It is the process's: hold it
// outside of comm::run_thread_ranks, not within.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// $RETORT_TEST_DATA, or ../shared/data beside the checkout; empty when neither exists.
Path test_data();
// The checkout's root.
Path source_directory();

// max |a - b| / max |b|: one number for a tensor, robust to zeros. Shapes must agree.
double relative_error(const at::Tensor& a, const at::Tensor& b);
// Same dtype, shape and bits.
bool same_bits(const at::Tensor& a, const at::Tensor& b);

}  // namespace retort::testing

// Skips aloud when the shared test data is not there.
#define RETORT_NEEDS_TEST_DATA()              \
  if (::retort::testing::test_data().empty()) \
  GTEST_SKIP() << "no test data: set RETORT_TEST_DATA or put ../shared/data beside the checkout"
