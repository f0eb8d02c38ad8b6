#include "kernels/device_rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>

#include "kernels/cuda/plugin.h"

namespace retort::kernels {

// What it gives is what ops_for() takes.
static_assert(std::is_same_v<decltype(retort_cuda_kernels()), const cuda::Table*>);

TEST(DeviceRate, OfTheProcessorIsAFiniteNumber) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const double rate = measured_rate(at::kCPU, dtype);
    EXPECT_TRUE(std::isfinite(rate) && rate > 0) << dtype;
  }
  wait_for(at::kCPU);
}

}  // namespace retort::kernels
