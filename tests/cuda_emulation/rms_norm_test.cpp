#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

constexpr double kEps = 1e-5;

// Every division of a row among threads, with and without a tail, and rows that runs do not fit.
const std::vector<int64_t> kWidths = {1,   8,    31,   32,   33,   128,  136, 256,
                                      264, 1024, 1031, 1032, 2056, 4104, 8200};

Operation plain() {
  return [](const Tensors& t) { return kernels::reference::rms_norm(t[0], t[1], kEps, false); };
}

TEST(CudaRmsNorm, MatchesFp64BothWays) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t width : kWidths)
      for (const int64_t rows : width < 1024 ? std::vector<int64_t>{1, 5, 33} : std::vector<int64_t>{3}) {
        const at::Tensor x = normal({rows, width}, 1).to(dtype), w = normal({width}, 2).to(at::kFloat);
        const std::string what = fmt::format("{} {}x{}", toString(dtype), rows, width);
        everywhere(
            what,
            [&](const Ops& ops, const at::Device& device) -> Tensors {
              const at::Tensor input = placed(x, device), weight = placed(w, device);
              const auto [y, rstd] = ops.rms_norm(input, weight, kEps);
              const auto [dx, dw] =
                  ops.rms_norm_backward(placed(direction_of(x.sizes(), dtype), device), input, weight, rstd);
              return {y, dx, dw.to(dtype)};
            },
            [&](const Tensors& got) {
              expect_no_worse(what, got, plain(), {x, w}, dtype);
            });
      }
}

TEST(CudaRmsNorm, TakesRowsThatLieAnywhere) {
  const at::Tensor x = normal({3, 256}, 1).to(at::kBFloat16), w = normal({256}, 2).to(at::kFloat);
  everywhere(
      "offset",
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        return {ops.rms_norm(placed(x, device, 3), placed(w, device, 1), kEps).first};
      },
      [&](const Tensors& got) {
        EXPECT_LE(relative_error(got[0], plain()({x.to(at::kDouble), w.to(at::kDouble)})), 0x1p-7);
      });
}

// h = x + residual goes on beside the norm, and both bring gradients back.
TEST(CudaRmsNorm, AddsAResidualBothWays) {
  const Operation both = [](const Tensors& t) {
    const at::Tensor sum = t[0] + t[1];
    return at::stack({sum, kernels::reference::rms_norm(sum, t[2], kEps, false)});
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t width : {31, 128, 1024, 1032, 2056, 8200}) {
      const at::Tensor x = normal({5, width}, 1).to(dtype), r = normal({5, width}, 3).to(dtype);
      const at::Tensor w = normal({width}, 2).to(at::kFloat), direction = direction_of({2, 5, width}, dtype);
      const std::string what = fmt::format("residual {} {}", toString(dtype), width);
      everywhere(
          what,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            const at::Tensor weight = placed(w, device);
            const Ops::Added a = ops.add_rms_norm(placed(x, device), placed(r, device), weight, kEps);
            const auto [dx, dw] = ops.rms_norm_backward(placed(direction[1], device), a.sum_ND, weight,
                                                        a.rstd_N, placed(direction[0], device));
            return {at::stack({a.sum_ND, a.y_ND}), dx, dx, dw.to(dtype)};
          },
          [&](const Tensors& got) {
            EXPECT_TRUE(same_bits(got[0][0], x + r)) << what;
            expect_no_worse(what, got, both, {x, r, w}, dtype);
          });
    }
}

// More rows than parts: every part has several, and the last ones fewer.
TEST(CudaRmsNorm, AddsUpManyRows) {
  const at::Tensor x = normal({4600, 24}, 1).to(at::kFloat), w = normal({24}, 2).to(at::kFloat);
  everywhere(
      "many rows",
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor input = placed(x, device), weight = placed(w, device);
        const auto [y, rstd] = ops.rms_norm(input, weight, kEps);
        const auto [dx, dw] =
            ops.rms_norm_backward(placed(direction_of(x.sizes(), at::kFloat), device), input, weight, rstd);
        return {y, dx, dw};
      },
      [&](const Tensors& got) {
        expect_no_worse("many rows", got, plain(), {x, w}, at::kFloat);
      });
}

}  // namespace
}  // namespace retort::testing
