// libretort_cuda.so as an emulated one: $RETORT_CUDA_PLUGIN names it for the whole process.
#include <gmock/gmock.h>

#include "comm/comm.h"
#include "core/cuda_plugin.h"
#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/cuda_ops.h"
#include "kernels/device_graph.h"
#include "tests/testing.h"

namespace retort {
namespace {

using ::testing::AllOf, ::testing::HasSubstr;

std::string trouble_with(const std::string& path) { return CudaPlugin(path).missing(); }

TEST(CudaPlugin, GivesItsKernels) {
  EXPECT_EQ(CudaPlugin::path(), RETORT_EMULATED_PLUGIN);
  EXPECT_TRUE(CudaPlugin::is_there());
  ASSERT_EQ(kernels::cuda::load(), "");
  const kernels::cuda::Ops& ops = kernels::cuda::device_ops();
  EXPECT_STREQ(ops.table().name, "emulated");
  const at::Tensor x = at::linspace(-3, 3, 120).view({3, 40}), u = at::linspace(1, 2, 120).view({3, 40});
  EXPECT_LE(testing::relative_error(ops.gate(kernels::Gate::kSilu, x, u), at::silu(x) * u), 0x1p-21);
}

TEST(CudaPlugin, IsAskedForGraphs) {
  ASSERT_NE(kernels::graphs_for(at::kCUDA), nullptr);
  EXPECT_THROW(kernels::graphs_for(at::kCUDA)(at::Device(at::kCUDA, 0), [] {}), std::runtime_error);
}

TEST(CudaPlugin, OneOfAnotherVersionIsRefusedByName) {
  EXPECT_THAT(trouble_with(RETORT_OTHER_PLUGIN),
              AllOf(HasSubstr(RETORT_OTHER_PLUGIN), HasSubstr("is of retort 0.0.9 (12345678)"),
                    HasSubstr("this program is of retort ")));
}

TEST(CudaPlugin, WhatIsNoneIsRefused) {
  EXPECT_THAT(trouble_with(RETORT_NO_PLUGIN), HasSubstr("is no part of retort, and this program is of"));
  EXPECT_THAT(trouble_with("/nowhere/libretort_cuda.so"),
              HasSubstr("there is no /nowhere/libretort_cuda.so"));
  const testing::TemporaryDirectory directory;
  const Path text = directory / "libretort_cuda.so";
  write_durably(local_files(), text, "no library\n");
  EXPECT_THAT(trouble_with(text.string()), HasSubstr(text.string()));
}

TEST(CudaPlugin, NcclIsAPartOfIt) {
  EXPECT_FALSE(comm::nccl_available());
  const auto self = comm::make_self_comm();
  try {
    comm::make_nccl_comm(*self);
    ADD_FAILURE() << "made";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("was built without NCCL"));
  }
}

}  // namespace
}  // namespace retort
