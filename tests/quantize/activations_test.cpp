#include "quantize/activations.h"

#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using testing::same_bits;

at::Tensor tokens() {
  at::Tensor x = at::empty({2, 5, 64});
  Random(5, "activations_test").fill_normal(x, 2.0);
  x[0][1].zero_();
  x[0][2].abs_();       // one sign
  x[1][0][7] = 1000.0;  // an outlier
  return x;
}

// One token at a time, from the header's words.
at::Tensor plain(const std::string& kind, const at::Tensor& row) {
  double least = 0, most = 0;
  for (int64_t i = 0; i < row.numel(); ++i)
    least = std::min(least, row[i].item<double>()), most = std::max(most, row[i].item<double>());
  at::Tensor out = at::zeros_like(row, at::kDouble);
  const double scale = kind == "int8" ? std::max(most, -least) / 127 : (most - least) / 255;
  if (scale == 0) return out;
  const double zero = kind == "int8" ? 0 : -128 - std::nearbyint(least / scale);
  for (int64_t i = 0; i < row.numel(); ++i) {
    const double code = std::clamp(std::nearbyint(row[i].item<double>() / scale) + zero, -128.0, 127.0);
    out[i] = (code - zero) * scale;
  }
  return out;
}

TEST(Activations, AreRoundedTokenByToken) {
  const at::Tensor x = tokens();
  for (const char* kind : {"int8", "int8_asymmetric"}) {
    const at::Tensor y = activation_kinds().at(kind).map(x);
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < 5; ++t)
        EXPECT_LT((y[b][t] - plain(kind, x[b][t])).abs().max().item<double>(),
                  1e-5 * (1 + x[b][t].abs().max().item<double>()))
            << kind << " " << b << ", " << t;
  }
  EXPECT_FALSE(activation_kinds().at("none").map);
}

TEST(Activations, ErrorIsHalfAStep) {
  const at::Tensor x = tokens();
  const at::Tensor y = activation_kinds().at("int8").map(x);
  const at::Tensor step = x.abs().amax(-1, true) / 127;
  EXPECT_TRUE(((y - x).abs() <= step * 0.5001).all().item<bool>());
  const at::Tensor z = activation_kinds().at("int8_asymmetric").map(x[0][2]);
  EXPECT_LT((z - x[0][2]).norm().item<double>(), (y[0][2] - x[0][2]).norm().item<double>())
      << "one sign has all 256 levels";
}

TEST(Activations, GradientGoesStraightThroughInTheDtypeOfX) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const char* kind : {"int8", "int8_asymmetric"}) {
      at::Tensor x = tokens().to(dtype).requires_grad_();
      const at::Tensor g = tokens().to(dtype);
      const at::Tensor y = activation_kinds().at(kind).map(x);
      EXPECT_EQ(y.scalar_type(), dtype);
      y.backward(g);
      EXPECT_TRUE(same_bits(x.grad(), g));
    }
}

}  // namespace
}  // namespace retort::quantize
