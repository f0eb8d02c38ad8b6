#include "kernels/packed_codes.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/packed_form.h"

namespace retort::kernels {
namespace {

// tests/cuda_emulation/packed_codes_test.cpp has their values, on the devices that they are for.
TEST(PackedCodes, AreADevicesAndWhole) {
  const auto packed = [](int64_t codes, int64_t scales) {
    return PackedCodes{.codes = at::zeros({codes}, at::kByte), .scales = at::zeros({scales}, at::kHalf)};
  };
  const auto refusal = [&](const PackedCodes& codes, at::IntArrayRef shape) -> std::string {
    try {
      unpack_codes(codes, shape, at::kFloat);
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(refusal(packed(64, 2), {2, 32}),
            "[unpack_codes] makes f32 or bf16 on a device that has kernels, not CPUFloatType");
  EXPECT_EQ(refusal(packed(63, 2), {2, 32}),
            "[unpack_codes] [2, 32] wants 64 bytes of codes and 2 scales, got 63 and 2");
  EXPECT_EQ(refusal(packed(64, 1), {2, 32}),
            "[unpack_codes] [2, 32] wants 64 bytes of codes and 2 scales, got 64 and 1");
  EXPECT_EQ(refusal(packed(64, 2), {2, 31}),
            "[unpack_codes] [2, 31] wants 62 bytes of codes and 2 scales, got 64 and 2");
}

}  // namespace
}  // namespace retort::kernels
