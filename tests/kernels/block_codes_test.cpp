#include "kernels/block_codes.h"

#include <cfenv>
#include <cmath>

#include "core/each_target.h"
#include "core/error.h"
#include "core/random.h"
#include "kernels/rounding.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using testing::same_bits;

at::Tensor normals(std::vector<int64_t> shape, double std) {
  at::Tensor x = at::empty(shape);
  Random(7, "block_codes_test").fill_normal(x, std);
  return x;
}

// One value at a time, from the header's words.
int plain_code(float x, float d, const Rounding& r) {
  const float v = x / d;
  switch (r.rule) {
    case RoundRule::kNearestEven:
      return static_cast<int>(std::clamp(std::nearbyint(v), float(r.lowest), float(r.highest)));
    case RoundRule::kNearestAway:
      return static_cast<int>(std::clamp(std::round(x * (1 / d)), float(r.lowest), float(r.highest)));
    case RoundRule::kTruncate: {
      const volatile float product = x * (1 / d);
      return static_cast<int>(std::clamp(std::floor(product + 0.5f - float(r.lowest)) + float(r.lowest),
                                         float(r.lowest), float(r.highest)));
    }
    case RoundRule::kSign:
      return x >= 0 ? 1 : -1;
    default: {  // the nearest of a list, the earlier on ties
      std::vector<int> levels = {-3, -1, 1, 3};
      const bool even = r.rule == RoundRule::kFloat4Even;
      if (even) levels = {0, 2, 4, 8, 1, 3, 6, 12, -2, -4, -8, -1, -3, -6, -12};
      if (r.rule == RoundRule::kFloat4) levels = {0, 1, 2, 3, 4, 6, 8, 12, -1, -2, -3, -4, -6, -8, -12};
      int best = levels[0];
      for (const int level : levels)
        if (std::fabs(double(v) - level) < std::fabs(double(v) - best)) best = level;
      return best;
    }
  }
}

const std::vector<Rounding> kRules = {{RoundRule::kNearestEven, -8, 7}, {RoundRule::kNearestEven, -128, 127},
                                      {RoundRule::kNearestAway, -1, 1}, {RoundRule::kTruncate, -8, 7},
                                      {RoundRule::kSign, -1, 1},        {RoundRule::kOdd, -3, 3},
                                      {RoundRule::kFloat4, -12, 12},    {RoundRule::kFloat4Even, -12, 12}};

TEST(RoundCodes, EqualsThePlainRule) {
  const at::Tensor x = normals({20, 96}, 3.0);
  x[3].copy_(at::arange(96, at::kFloat).sub(48).mul(0.25));  // ties of every rule, under a scale of 1
  const at::Tensor scale = normals({20, 3}, 1.0).abs().add(0.25);
  scale[3].fill_(1.0);
  for (const Rounding& rule : kRules) {
    const at::Tensor codes = round_codes(x, {scale, {}, {}, {}}, rule);
    for (int64_t r = 0; r < 20; ++r)
      for (int64_t c = 0; c < 96; ++c) {
        if (rule.rule == RoundRule::kOdd && r == 3 && c % 8 == 0) continue;  // a tie of two odd numbers
        ASSERT_EQ(codes[r][c].item<int8_t>(),
                  plain_code(x[r][c].item<float>(), scale[r][c / 32].item<float>(), rule))
            << static_cast<int>(rule.rule) << " at " << r << ", " << c << ": " << x[r][c].item<float>();
      }
  }
}

TEST(RoundCodes, ZeroDivisorsAndNonFiniteValuesHaveACode) {
  const at::Tensor x = at::tensor({0.0f, -1.0f, 1.0f, std::nanf(""), INFINITY, -INFINITY}).unsqueeze(0);
  for (const Rounding& rule : kRules)
    for (const float d : {0.0f, 1.0f, 1e-38f}) {
      const at::Tensor codes = round_codes(x, {at::full({1, 1}, d), {}, {}, {}}, rule);
      EXPECT_GE(codes.min().item<int8_t>(), rule.lowest);
      EXPECT_LE(codes.max().item<int8_t>(), rule.highest);
    }
}

TEST(RoundCodes, Float8IsTheNearestNumber) {
  const at::Tensor x = normals({4, 64}, 100.0);
  x[0][0] = 1e6;
  const at::Tensor scale = normals({4, 1}, 1.0).abs().add(0.5);
  const at::Tensor codes = round_codes(x, {scale, {}, {}, {}}, {RoundRule::kFloat8, -448, 448});
  EXPECT_EQ(codes.scalar_type(), at::kFloat8_e4m3fn);
  EXPECT_EQ(codes[0][0].to(at::kFloat).item<float>(), 448.0f);
  const at::Tensor y = dequantize_blocks({codes, {scale, {}, {}, {}}});
  const at::Tensor inside = x / scale, error = ((y - x) / x).abs();
  for (int64_t i = 1; i < x.numel(); ++i) {
    const double v = std::fabs(inside.view(-1)[i].item<double>());
    if (v > 0x1p-6 && v < 448) {  // three bits of fraction
      EXPECT_LE(error.view(-1)[i].item<double>(), 1.0 / 16 + 1e-6);
    }
  }
}

// One pass gives what two give: every rule, a group that unrolls and one that does not, a divisor of its own,
// zeros, an offset.
TEST(RoundValues, EqualsCodesTimesScales) {
  std::vector<Rounding> rules = kRules;
  rules.push_back({RoundRule::kFloat8, -448, 448});
  for (const int64_t group : {16, 21, 32, 672}) {
    at::Tensor x = normals({430, 672}, 3.0);
    x[3].copy_(at::arange(672, at::kFloat).sub(336).mul(0.25));
    x[4].mul_(1e-6);
    x[5].zero_();
    const at::Tensor scale = normals({430, 672 / group}, 1.0), offset = normals({430, 672 / group}, 0.1);
    scale[3].fill_(1.0);
    scale[6].zero_();
    for (const Rounding& rule : rules)
      for (const BlockScales& scales :
           {BlockScales{scale, {}, {}, {}}, BlockScales{scale, {}, scale * 1.001, {}},
            BlockScales{scale, offset, {}, {}}}) {
        if (scales.offset.defined() && rule.rule != RoundRule::kNearestEven) continue;  // the rest have none
        const at::Tensor expected = dequantize_blocks({round_codes(x, scales, rule), scales});
        const at::Tensor values = at::empty_like(x);
        round_values(x, scales, rule, values);
        EXPECT_TRUE(same_bits(values, expected)) << static_cast<int>(rule.rule) << ", groups of " << group;
        const at::Tensor in_place = x.clone();
        round_values(in_place, scales, rule, in_place);
        EXPECT_TRUE(same_bits(in_place, expected)) << static_cast<int>(rule.rule);
      }
  }
}

// Every E4M3 number, every midpoint of two, and their neighbours in f32.
TEST(RoundValues, Float8RoundsAsItsConversion) {
  const at::Tensor numbers = at::arange(127, at::kByte).view(at::kFloat8_e4m3fn).to(at::kFloat);
  const at::Tensor middles = (numbers.slice(0, 1) + numbers.slice(0, 0, 126)) / 2;
  at::Tensor x = at::cat({numbers, middles, at::tensor({449.0f, 464.0f, 1e30f, INFINITY, 1e-40f})});
  x = at::cat({x, at::nextafter(x, at::zeros({})), at::nextafter(x, at::full({}, INFINITY))});
  x = at::cat({x, -x}).unsqueeze(0);
  const BlockScales one{at::ones({1, 1}), {}, {}, {}};
  const Rounding rule{RoundRule::kFloat8, -448, 448};
  const at::Tensor values = at::empty_like(x);
  round_values(x, one, rule, values);
  EXPECT_TRUE(same_bits(values, dequantize_blocks({round_codes(x, one, rule), one})));
  round_values(at::full({1, 1}, NAN), one, rule, values.narrow(1, 0, 1));
  EXPECT_TRUE(std::isnan(values[0][0].item<float>()));
}

TEST(BlockScales, GroupsComeApartAndTogether) {
  const BlockScales whole{normals({5, 6}, 1.0), normals({5, 6}, 1.0), {}, {}};
  std::vector<BlockScales> parts;
  for (int64_t g = 0; g < whole.groups(); ++g) parts.push_back(whole.group(g));
  EXPECT_TRUE(same_bits(concatenate(parts).scale, whole.scale));
  EXPECT_TRUE(same_bits(concatenate(parts).offset, whole.offset));
  EXPECT_FALSE(concatenate(parts).divisor.defined());
  parts[2].offset = at::Tensor();
  EXPECT_THROW(concatenate(parts), ShapeError);
}

TEST(DequantizeBlocks, IsOneProductAndOneSum) {
  const at::Tensor codes = at::arange(-60, 60, at::kChar).view({4, 30});
  const at::Tensor scale = normals({4, 3}, 1.0), offset = normals({4, 3}, 1.0);
  const at::Tensor product = codes.to(at::kFloat).view({4, 3, 10}) * scale.unsqueeze(-1);
  EXPECT_TRUE(same_bits(dequantize_blocks({codes, {scale, {}, {}, {}}}), product.view({4, 30})));
  EXPECT_TRUE(same_bits(dequantize_blocks({codes, {scale, offset, {}, {}}}),
                        (product + offset.unsqueeze(-1)).view({4, 30})));
}

TEST(BlockCodes, RefusesShapesThatDoNotFit) {
  const at::Tensor x = normals({4, 30}, 1.0);
  const Rounding rule{RoundRule::kNearestEven, -8, 7};
  EXPECT_THROW(round_codes(x, {at::ones({4, 4}), {}, {}, {}}, rule), ShapeError);
  EXPECT_THROW(round_codes(x, {at::ones({3, 3}), {}, {}, {}}, rule), ShapeError);
  EXPECT_THROW(round_codes(x, {at::ones({4, 3}), at::ones({4, 1}), {}, {}}, rule), ShapeError);
  EXPECT_THROW(round_codes(x.to(at::kDouble), {at::ones({4, 3}), {}, {}, {}}, rule), ShapeError);
  EXPECT_THROW(dequantize_blocks({x, {at::ones({4, 3}), {}, {}, {}}}), ShapeError);
  EXPECT_THROW(round_values(x, {at::ones({4, 4}), {}, {}, {}}, rule, at::empty({4, 30})), ShapeError);
  EXPECT_THROW(round_values(x, {at::ones({4, 3}), {}, {}, {}}, rule, at::empty({30, 4}).t()), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
