#include "core/kept_pages.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>
#include <fstream>
#include <sstream>

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

// The flags of the mapping that `address` lies in.
std::string mapping_flags(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto place = reinterpret_cast<uintptr_t>(address);
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    if (std::istringstream(line) >> std::hex >> begin >> dash >> end && dash == '-')
      here = begin <= place && place < end;
    if (here && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

TEST(KeptPages, LieInLargePagesWhereTheKernelHasThem) {
  RETORT_NEEDS_COUNTED_MEMORY();
  if (!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) GTEST_SKIP() << "no large pages";
  malloc_trim(0);
  const int64_t before = resident_bytes();
  const KeptPages kept;
  EXPECT_LT(resident_bytes() - before, 8 * kMiB) << "what is marked is not touched";
  const at::Tensor block = at::ones({64, kMiB}, at::kFloat);
  EXPECT_NE(mapping_flags(block.data_ptr<float>() + 32 * kMiB).find(" hg "), std::string::npos);
}

}  // namespace
}  // namespace retort
