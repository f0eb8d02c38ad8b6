#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::Gate;
using kernels::cuda::Ops;

// Runs with and without a tail, fewer elements than a run, more than a block.
const std::vector<int64_t> kSizes = {1, 7, 8, 31, 32, 33, 2047, 2048, 2049, 4111};

void expect_gate(const char* name, Gate gate, bool factor, const Operation& plain, int64_t offset = 0) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t n : kSizes) {
      const at::Tensor a = normal({n}, 1, 3.0).to(dtype), u = normal({n}, 2).to(dtype);
      const at::Tensor dy = direction_of({n}, dtype);
      const std::string what = fmt::format("{} {} {}", name, toString(dtype), n);
      everywhere(
          what,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            const at::Tensor input = placed(a, device, offset),
                             other = factor ? placed(u, device, offset) : at::Tensor();
            const auto [da, du] = ops.gate_backward(gate, placed(dy, device, offset), input, other);
            const at::Tensor y = ops.gate(gate, input, other);
            return factor ? Tensors{y, da, du} : Tensors{y, da};
          },
          [&](const Tensors& got) {
            expect_no_worse(what, got, plain, factor ? Tensors{a, u} : Tensors{a}, dtype);
          });
    }
}

const Operation kSwiglu = [](const Tensors& t) { return kernels::reference::swiglu(t[0], t[1]); };

TEST(CudaGate, SwigluMatchesFp64) { expect_gate("swiglu", Gate::kSilu, true, kSwiglu); }
TEST(CudaGate, GegluMatchesFp64) {
  expect_gate("geglu", Gate::kGeluTanh, true,
              [](const Tensors& t) { return kernels::reference::geglu(t[0], t[1]); });
}
TEST(CudaGate, Relu2gluMatchesFp64) {
  expect_gate("relu2glu", Gate::kRelu2, true,
              [](const Tensors& t) { return kernels::reference::relu2glu(t[0], t[1]); });
}
TEST(CudaGate, GeluAloneMatchesFp64) {
  expect_gate("gelu_tanh", Gate::kGeluTanh, false,
              [](const Tensors& t) { return kernels::reference::gelu_tanh(t[0]); });
}
TEST(CudaGate, TakesTensorsThatLieAnywhere) { expect_gate("offset", Gate::kSilu, true, kSwiglu, 1); }

TEST(CudaGate, KeepsWhatIsNoNumber) {
  const at::Tensor a = at::tensor({NAN, INFINITY, -INFINITY, -1e30f, 1e30f, 0.0f});
  for (const Gate gate : {Gate::kSilu, Gate::kGeluTanh, Gate::kRelu2})
    everywhere(
        "nan",
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          return {ops.gate(gate, placed(a, device), {})};
        },
        [&](const Tensors& got) {
          const float* y = got[0].const_data_ptr<float>();
          EXPECT_TRUE(std::isnan(y[0]));
          EXPECT_EQ(y[1], INFINITY);
          EXPECT_EQ(y[5], 0.0f);
          EXPECT_EQ(std::abs(y[3]), gate == Gate::kRelu2 ? 0.0f : std::abs(y[3]));
        });
}

}  // namespace
}  // namespace retort::testing
