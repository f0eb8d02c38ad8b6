#include "core/cuda_plugin.h"

#include <gmock/gmock.h>

namespace retort {

// tests/cuda_emulation opens one that is there, and one of another version.
TEST(CudaPluginFile, SaysWhyItCannotBeUsed) {
  const CudaPlugin nothing("/nowhere/libretort_cuda.so"), other("/proc/self/exe");
  EXPECT_THAT(nothing.missing(), ::testing::HasSubstr("there is no /nowhere/libretort_cuda.so"));
  EXPECT_NE(other.missing(), "");
  EXPECT_EQ(nothing.function<int()>("retort_cuda_stamp"), nullptr);
}

}  // namespace retort
