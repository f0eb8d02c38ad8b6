#include "core/kept_pages.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort {
namespace {

using namespace retort::testing;

TEST(KeptPages, StayResidentUntilItGoes) {
  RETORT_NEEDS_COUNTED_MEMORY();
  const auto use_and_free = [](int64_t mebibytes) { at::ones({mebibytes / 4, kMiB}, at::kFloat); };
  malloc_trim(0);  // pages that earlier tests left in the heap would serve
  const int64_t before = resident_bytes();
  std::unique_ptr<char[]> above;  // the heap cannot shrink below it
  {
    const KeptPages kept;
    const at::Tensor block = at::ones({64, kMiB}, at::kFloat);
    above = std::make_unique<char[]>(kMiB);
  }
  EXPECT_LT(resident_bytes() - before, 32 * kMiB);
  use_and_free(512);  // more than the hole that `block` left
  EXPECT_LT(resident_bytes() - before, 32 * kMiB);
  {
    const KeptPages kept;
    use_and_free(512);
    EXPECT_GT(resident_bytes() - before, 400 * kMiB);
  }
  EXPECT_LT(resident_bytes() - before, 32 * kMiB);
}

}  // namespace
}  // namespace retort
