#include "kernels/fitted_values.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/scale_fit.h"

namespace retort::kernels {
namespace {

// tests/cuda_emulation/fake_quantize_test.cpp has its values, on the devices that it is for.
TEST(FittedValues, AreADevices) {
  const ScaleFit fit{Fit::kInteger, 32, 7.5};
  const Rounding rounding{RoundRule::kNearestEven, -8, 7};
  const at::Tensor x = at::zeros({2, 32});
  EXPECT_THROW(round_fitted(x, fit, rounding, at::empty({2, 32})), ShapeError);
  EXPECT_THROW(round_fitted(at::empty({2, 32}, at::kMeta), fit, rounding, at::empty({2, 32}, at::kMeta)),
               ShapeError);
}

}  // namespace
}  // namespace retort::kernels
