#include "core/cuda_driver.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cstdlib>

namespace retort {
namespace {

using ::testing::HasSubstr;

constexpr const char* kFake = RETORT_FAKE_CUDA_DRIVER;

struct Environment {
  Environment(const char* name, const char* value) : name(name) { ::setenv(name, value, 1); }
  ~Environment() { ::unsetenv(name); }
  const char* name;
};

}  // namespace

TEST(CudaDriver, TellsOfEveryGpu) {
  const CudaDriver driver = probe_cuda_driver(kFake);
  EXPECT_EQ(driver.missing, "");
  EXPECT_EQ(cuda_version(driver.version), "13.2");
  ASSERT_EQ(driver.gpus.size(), 2u);
  EXPECT_EQ(driver.gpus[1].name, "NVIDIA Second");
  EXPECT_EQ(driver.gpus[1].memory, uint64_t{141} << 30);
  EXPECT_EQ(driver.gpus[0].uuid, "000102030405060708090a0b0c0d0e0f");
  EXPECT_EQ(driver.gpus[1].uuid.substr(0, 4), "1011");
  EXPECT_EQ(driver.gpus[0].major, 9);
  EXPECT_EQ(driver.gpus[0].minor, 1);
  EXPECT_EQ(driver.gpus[0].multiprocessors, 132);
  EXPECT_EQ(nccl_version(kFake), 22809);
}

TEST(CudaDriver, StaysWhereItWasInitialised) {
  probe_cuda_driver(kFake);
  void* const there = ::dlopen(kFake, RTLD_NOW | RTLD_NOLOAD);
  EXPECT_NE(there, nullptr) << "a driver that has begun is unloaded";
  if (there != nullptr) ::dlclose(there);
}

TEST(CudaDriver, SaysWhyThereIsNone) {
  EXPECT_THAT(probe_cuda_driver("libno_such_driver.so.1").missing, HasSubstr("libno_such_driver.so.1"));
  EXPECT_EQ(nccl_version("libno_such_nccl.so"), 0);
  {
    const Environment fails("RETORT_FAKE_CUDA_STATUS", "803");
    const CudaDriver driver = probe_cuda_driver(kFake);
    EXPECT_THAT(driver.missing, HasSubstr("cuInit: system driver mismatch (error 803)"));
    EXPECT_EQ(driver.version, 13020);
    EXPECT_TRUE(driver.gpus.empty());
  }
  EXPECT_EQ(probe_cuda_driver(kFake, 13050).missing, "");  // the same major number
  EXPECT_THAT(
      probe_cuda_driver(kFake, 14000).missing,
      HasSubstr("the driver is too old: it knows CUDA up to 13.2, and LibTorch here is of CUDA 14.0"));
  const Environment hidden("CUDA_VISIBLE_DEVICES", "");
  EXPECT_THAT(probe_cuda_driver(kFake).missing, HasSubstr("CUDA_VISIBLE_DEVICES"));
}

// The one that libtorch_cpu brings: what the test above compares with is what a run does.
TEST(CudaDriver, KnowsTheRuntimeOfLibTorch) { EXPECT_EQ(cuda_version(cuda_runtime_version()), "13.0"); }

}  // namespace retort
