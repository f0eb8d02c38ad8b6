#include "formats/finite_values.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::formats {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(FiniteValues, TheFirstPlaceIsNamed) {
  at::Tensor x = at::ones({3, 2, 4});
  check_finite("[x]", "w", x);
  x[1][1][2] = NAN;
  x[2][0][0] = INFINITY;
  EXPECT_THAT([&] { check_finite("[x]", "w", x); },
              ThrowsMessage<NonFiniteError>("[x] w: its weights must be finite, and [1, 1, 2] is nan"));
  EXPECT_THAT([&] { check_finite("[x]", "w", x.transpose(0, 2)); },
              ThrowsMessage<NonFiniteError>(HasSubstr("and [0, 0, 2] is inf")));
  EXPECT_THROW(check_finite("[x]", "scalar", at::full({}, -INFINITY)), NonFiniteError);
  check_finite("[x]", "none", at::empty({0, 3}));
}

TEST(FiniteValues, AValueBeyondItsTypeIsOfferedAnother) {
  at::Tensor x = at::ones({2, 3});
  x[1][2] = 65519.0;  // rounds to the largest
  check_in_range("[x]", "w", x.to(at::kHalf));
  x[1][2] = 65520.0;
  check_in_range("[x]", "w", x);
  check_in_range("[x]", "w", x.to(at::kBFloat16));
  check_in_range("[x]", "w", x.to(at::kLong));
  EXPECT_THAT(
      [&] { check_in_range("[x]", "w", x.to(at::kHalf)); },
      ThrowsMessage<ConfigError>("[x] w[1, 2] is beyond the range of f16, whose largest number is 65504: "
                                 "write bf16 or f32"));
  EXPECT_THROW(check_in_range("[x]", "w", at::full({1}, 3.4e38).to(at::kBFloat16)), ConfigError);
  EXPECT_THROW(check_in_range("[x]", "w", at::full({1}, NAN).to(at::kFloat8_e4m3fn)), ConfigError);
}

// Whatever a type does with a value that it cannot hold, what it holds is checked.
TEST(FiniteValues, EveryWrittenTypeIsChecked) {
  for (const std::string& name : written_ggml_types()) {
    const GgmlType type = ggml_type_named(name).type;
    at::Tensor x = at::randn({2, 512});
    check_in_range("[x]", "w", pack(type, x));
    x[1][300] = 3.4e38;
    const PackedTensor packed = pack(type, x);
    if (unpack(packed).isfinite().all().item<bool>())
      check_in_range("[x]", "w", packed);
    else
      EXPECT_THAT([&] { check_in_range("[x]", "w", packed); },
                  ThrowsMessage<ConfigError>(AllOf(HasSubstr("[x] w[1, "), HasSubstr(name))))
          << name;
  }
}

TEST(FiniteValues, ScalesAreOfTheirParameter) {
  kernels::BlockCodes blocks = quantize_blocks(GgmlType::Q8_0, at::ones({2, 64}));
  check_scales("[x]", "w", blocks.scales.scale);
  EXPECT_THAT(
      [&] {
        check_scales("[x]", "w", quantize_blocks(GgmlType::Q8_0, at::full({2, 64}, 1e8)).scales.scale);
      },
      ThrowsMessage<ConfigError>(HasSubstr("[x] w: the scale [0, 0] is beyond the range of its grid")));
}

}  // namespace retort::formats
