#include "core/cuda_plugin.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/testing.h"

namespace retort {

// tests/cuda_emulation opens one that is there, and one of another version.
TEST(CudaPluginFile, SaysWhyItCannotBeUsed) {
  const CudaPlugin nothing("/nowhere/libretort_cuda.so"), other("/proc/self/exe");
  EXPECT_THAT(nothing.missing(), ::testing::HasSubstr("there is no /nowhere/libretort_cuda.so"));
  EXPECT_NE(other.missing(), "");
  EXPECT_EQ(nothing.function<int()>("retort_cuda_stamp"), nullptr);
}

// To open it would end the process.
TEST(CudaPluginFile, OneThatIsCutShortIsNotOpened) {
  const testing::TemporaryDirectory directory;
  const std::string path = (directory / "libretort_cuda.so").string();
  std::vector<char> head(20000);
  std::ifstream("/proc/self/exe", std::ios::binary).read(head.data(), std::ssize(head));
  for (const int64_t bytes : {20000, 70}) {  // in the segments, and in the table of them
    std::ofstream(path, std::ios::binary).write(head.data(), bytes);
    const CudaPlugin cut(path);
    EXPECT_THAT(cut.missing(), ::testing::HasSubstr(path + " is truncated: rebuild it, or copy it again"));
    EXPECT_EQ(cut.function<int()>("retort_cuda_stamp"), nullptr);
  }
}

TEST(CudaPluginFile, WhatBringsAMissingLibraryIsSaid) {
  const std::string missing = "libcufile.so.0: cannot open shared object file: No such file or directory";
  EXPECT_EQ(with_remedy(missing), missing + "; scripts/setup.sh --cuda brings NVIDIA's libraries");
  EXPECT_EQ(with_remedy("no CUDA-capable device"), "no CUDA-capable device");
}

}  // namespace retort
