#include "formats/compressed_tensors.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "formats/compressed_scheme.h"
#include "formats/packed_words.h"
#include "tests/formats/stored_tensors.h"
#include "tests/testing.h"

namespace retort::formats {
namespace {

using testing::Tensors;

// Random codes of a scheme, with scales that f16 holds.
kernels::BlockCodes random_codes(const CompressedScheme& scheme, int64_t out, int64_t in) {
  const int64_t groups = scheme.group_size > 0 ? in / scheme.group_size : 1;
  at::Tensor noise = at::empty({out, in}), scales = at::empty({out, groups});
  Random(3, "codes").fill_normal(noise, 1.0);
  Random(3, "scales").fill_normal(scales, 1.0);
  scales = (scales.abs() + 0.25).to(at::kHalf).to(at::kFloat);
  if (scheme.has_global_scale()) {
    const at::Tensor twice = at::tensor({0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}, at::kChar);
    const at::Tensor places = (noise * 1000).to(at::kLong).remainder(16);
    const at::Tensor global = at::full({1}, 37.0f);
    scales = scales.to(at::kFloat8_e4m3fn).to(at::kFloat) / global * 0.5;
    return {twice.index({places}), {scales, {}, {}, global.view(at::kByte).expand({out, 4}).contiguous()}};
  }
  if (scheme.type == "float") return {(noise * 100).to(at::kFloat8_e4m3fn), {scales, {}, {}, {}}};
  const int64_t half = int64_t{1} << (scheme.bits - 1);
  const at::Tensor codes = (noise * 1000).to(at::kLong).remainder(2 * half) - half;
  return {codes.to(at::kChar), {scales, {}, {}, {}}};
}

Json compressed(int bits) {
  return {{"quant_method", "compressed-tensors"},
          {"config_groups", {{"group_0", {{"weights", {{"num_bits", bits}}}}}}}};
}

// Codes 0 .. 15 of [6, 32] in words along the rows.
Tensors packed() {
  const at::Tensor codes = at::arange(6 * 32, at::kInt).remainder(16).view({6, 32});
  return {{"m.weight_packed", formats::pack_words(codes, 4)},
          {"m.weight_scale", at::arange(1, 13).view({6, 2}).to(at::kHalf)},
          {"m.weight_shape", at::tensor({6, 32}, at::kLong)},
          {"norm.weight", at::ones({6})}};
}

}  // namespace

// All that is written is read, and is the codes times their scales.
TEST(CompressedTensors, ComeBack) {
  for (const auto& [scheme, activations, format] :
       {std::tuple{CompressedScheme{"int", 4, "channel", 0}, false, "pack-quantized"},
        {CompressedScheme{"int", 4, "group", 32}, false, "pack-quantized"},
        {CompressedScheme{"int", 4, "group", 128}, false, "pack-quantized"},
        {CompressedScheme{"int", 8, "channel", 0}, false, "pack-quantized"},
        {CompressedScheme{"int", 8, "channel", 0}, true, "int-quantized"},
        {CompressedScheme{"float", 8, "channel", 0}, true, "float-quantized"},
        {CompressedScheme{"float", 4, "tensor_group", 16}, false, "nvfp4-pack-quantized"}})
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf}) {
      const kernels::BlockCodes matrix = random_codes(scheme, 6, 256);
      const Json config = compressed_config(scheme, activations, {"plain"});
      EXPECT_EQ(config.at("format"), format);
      EXPECT_EQ(config.at("ignore"), (std::vector<std::string>{"lm_head", "plain"}));
      Tensors tensors = testing::module_m(pack_compressed(scheme, matrix, activations, dtype));
      tensors["plain.weight"] = at::ones({2, 2});
      if (!scheme.has_global_scale()) {
        EXPECT_EQ(tensors.at("m.weight_scale").scalar_type(), dtype) << format;
      }
      const StoredTensors back = unpack_compressed(testing::stored(tensors), config, "config.json");
      EXPECT_EQ(back.shapes.size(), 2u) << format;
      EXPECT_EQ(back.shapes.at("m.weight"), (std::vector<int64_t>{6, 256}));
      EXPECT_TRUE(at::equal(back.values("m.weight"), dequantize_blocks(matrix))) << format;
      EXPECT_TRUE(at::equal(back.values("plain.weight"), at::ones({2, 2})));
    }
}

TEST(CompressedTensors, ScalesThatF16CannotHoldStayF32) {
  const CompressedScheme scheme{"int", 8, "channel", 0};
  kernels::BlockCodes matrix = random_codes(scheme, 4, 32);
  matrix.scales.scale = matrix.scales.scale + 1e-5;
  const Tensors tensors = testing::module_m(pack_compressed(scheme, matrix, true, at::kHalf));
  EXPECT_EQ(tensors.at("m.weight_scale").scalar_type(), at::kFloat);
}

TEST(CompressedTensors, PackedWordsBecomeTheMatrix) {
  const StoredTensors plain = unpack_compressed(testing::stored(packed()), compressed(4), "config.json");
  EXPECT_EQ(plain.shapes.size(), 2u);
  EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{6, 32}));
  EXPECT_TRUE(at::equal(plain.values("norm.weight"), at::ones({6})));
  const at::Tensor w = plain.values("m.weight");
  for (int64_t o = 0; o < 6; ++o)
    for (int64_t i = 0; i < 32; ++i)
      EXPECT_EQ(w[o][i].item<float>(), static_cast<float>(((o * 32 + i) % 16 - 8) * (2 * o + i / 16 + 1)));
}

TEST(CompressedTensors, PlainCodesBecomeTheMatrix) {
  const at::Tensor codes = at::arange(-8, 8).view({4, 4});
  for (const at::ScalarType dtype : {at::kChar, at::kFloat8_e4m3fn})
    for (const at::Tensor& scale : {at::full({4, 1}, 0.5), at::full({1}, 0.5)}) {
      const Tensors tensors = {{"m.weight", codes.to(at::kFloat).to(dtype)}, {"m.weight_scale", scale}};
      const StoredTensors plain = unpack_compressed(testing::stored(tensors), compressed(8), "config.json");
      EXPECT_EQ(plain.shapes.size(), 1u);
      EXPECT_TRUE(at::equal(plain.values("m.weight"), codes.to(at::kFloat) * 0.5));
    }
}

TEST(CompressedTensors, WhatDoesNotFitTogetherIsRefused) {
  const auto refused = [](const std::string& name, const at::Tensor& tensor, const Json& config) {
    Tensors tensors = packed();
    tensors[name] = tensor;
    EXPECT_THROW(unpack_compressed(testing::stored(tensors), config, "config.json"), DataError) << name;
  };
  const Json four = compressed(4);
  refused("m.weight_shape", at::tensor({6, 33}, at::kLong), four);
  refused("m.weight_shape", at::tensor({7, 32}, at::kLong), four);
  refused("m.weight_shape", at::tensor({6, -1}, at::kLong), four);
  refused("m.weight_scale", at::ones({6, 5}), four);
  refused("m.weight_scale", at::ones({5, 2}), four);
  refused("m.weight_zero_point", at::ones({6, 2}), four);
  refused("m.weight_g_idx", at::ones({32}), four);
  refused("x", at::ones({1}), compressed(3));
  Json two = four;
  two["config_groups"]["group_1"] = two["config_groups"]["group_0"];
  refused("x", at::ones({1}), two);
  Tensors lacking = packed();
  lacking.erase("m.weight_scale");
  EXPECT_THROW(unpack_compressed(testing::stored(lacking), four, "config.json"), DataError);
}

}  // namespace retort::formats
