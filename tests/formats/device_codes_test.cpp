#include "formats/device_codes.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::formats {
namespace {

// Row by row the same bytes: 2 of each block are its scale.
TEST(DeviceCodes, AreTheBlocksBytesApart) {
  const at::Tensor x = at::linspace(-3.0, 4.0, 3 * 64, at::kFloat).view({3, 64});
  const kernels::BlockCodes blocks = quantize_blocks(GgmlType::Q8_0, x);
  const kernels::PackedCodes codes = device_codes(pack(GgmlType::Q8_0, x));
  EXPECT_EQ(codes.form, kernels::PackedForm::kQ8_0);
  EXPECT_TRUE(at::equal(codes.codes.view(at::kChar).view({3, 64}), blocks.codes));
  EXPECT_TRUE(at::equal(codes.scales.view({3, 2}).to(at::kFloat), blocks.scales.scale));
  const kernels::PackedCodes nibbles = device_codes(pack(GgmlType::Q4_0, x));
  EXPECT_EQ(nibbles.form, kernels::PackedForm::kQ4_0);
  EXPECT_EQ(nibbles.codes.sizes(), (std::vector<int64_t>{6, 16}));
  EXPECT_THROW(device_codes(pack(GgmlType::Q5_0, x)), ConfigError);
}

}  // namespace
}  // namespace retort::formats
