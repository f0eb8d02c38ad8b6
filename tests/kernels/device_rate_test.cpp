#include "kernels/device_rate.h"

#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
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

// Equal numbers would be multiplied faster than data.
TEST(DeviceRate, ItsFactorsHaveMixedBits) {
  static std::set<float> seen;  // of the last product's first factor
  const auto note = [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
    if (std::string(call.name()) != "aten::mm") return nullptr;
    const at::Tensor first = call.inputs()[0].toTensor().flatten().narrow(0, 0, 4096).to(at::kFloat);
    seen = {first.const_data_ptr<float>(), first.const_data_ptr<float>() + first.numel()};
    return nullptr;
  };
  const at::CallbackHandle handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(note).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  measured_rate(at::kCPU, at::kFloat);
  at::removeCallback(handle);
  EXPECT_GT(seen.size(), 4000u);
}

}  // namespace retort::kernels
