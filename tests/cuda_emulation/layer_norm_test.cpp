#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

constexpr double kEps = 1e-5;

KernelRun both_ways(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  return [=](const Ops& ops, const at::Device& device) -> Tensors {
    const at::Tensor input = placed(x, device), weight = placed(w, device);
    const auto [y, moments] = ops.layer_norm(input, weight, placed(b, device), kEps);
    const auto [dx, dwb] = ops.layer_norm_backward(placed(direction_of(x.sizes(), x.scalar_type()), device),
                                                   input, weight, moments);
    return {y, dx, dwb[0].to(x.scalar_type()), dwb[1].to(x.scalar_type())};
  };
}

Operation plain() {
  return [](const Tensors& t) { return kernels::reference::layer_norm(t[0], t[1], t[2], kEps); };
}

TEST(CudaLayerNorm, MatchesFp64BothWays) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t width : {1, 8, 31, 33, 128, 136, 1024, 1031, 1032, 2056, 4104, 8200})
      for (const int64_t rows : width < 1024 ? std::vector<int64_t>{1, 33} : std::vector<int64_t>{3}) {
        const at::Tensor x = normal({rows, width}, 1).to(dtype), w = normal({width}, 2).to(at::kFloat),
                         b = normal({width}, 3).to(at::kFloat);
        const std::string what = fmt::format("{} {}x{}", toString(dtype), rows, width);
        everywhere(what, both_ways(x, w, b), [&](const Tensors& got) {
          // With one column the variance is 0 and the gradients are what is left of rstd = 316.
          expect_no_worse(what, got, plain(), {x, w, b}, dtype, width == 1 ? 1000.0 : 0.0);
        });
      }
}

// A row far from zero keeps its variance.
TEST(CudaLayerNorm, KeepsTheVarianceOfARowFarFromZero) {
  const at::Tensor x = normal({4, 1000}, 1).to(at::kFloat) + 4096.0, w = at::ones({1000}),
                   b = at::zeros({1000});
  everywhere("far", both_ways(x, w, b), [&](const Tensors& got) {
    EXPECT_LE(relative_error(got[0], plain()({x.to(at::kDouble), w.to(at::kDouble), b.to(at::kDouble)})),
              1e-4);
  });
}

}  // namespace
}  // namespace retort::testing
