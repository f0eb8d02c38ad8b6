#include "formats/gptq_layout.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "formats/packed_words.h"
#include "tests/formats/stored_tensors.h"
#include "tests/testing.h"

namespace retort::formats {
namespace {

using testing::Tensors;

Tensors gptq() {
  const at::Tensor codes = at::arange(8 * 16, at::kInt).remainder(16).view({8, 16});  // [out, in]
  return {{"m.qweight", formats::pack_words(codes, 4).t()},
          {"m.qzeros", formats::pack_words(at::full({2, 8}, 7, at::kInt), 4)},
          {"m.scales", at::arange(1, 17).view({2, 8}).to(at::kHalf)},
          {"m.g_idx", at::arange(16, at::kInt).remainder(2)}};  // groups in any order
}

}  // namespace

// All that is written is read, and is the codes times their scales.
TEST(GptqLayout, ComesBack) {
  for (const GptqVersion version : {GptqVersion::kFirst, GptqVersion::kSecond})
    for (const int64_t bits : {4, 8})
      for (const int64_t group : {-1, 32, 64}) {
        at::Tensor noise = at::empty({8, 128}), scales = at::empty({8, group < 0 ? 1 : 128 / group});
        Random(3, "codes").fill_normal(noise, 1.0);
        Random(3, "scales").fill_normal(scales, 1.0);
        const int64_t half = int64_t{1} << (bits - 1);
        const kernels::BlockCodes matrix = {
            ((noise * 1000).to(at::kLong).remainder(2 * half) - half).to(at::kChar),
            {scales.to(at::kHalf).to(at::kFloat), {}, {}, {}}};
        const Tensors tensors = testing::module_m(pack_gptq(matrix, bits, version));
        const Json config = gptq_config(bits, group, version);
        EXPECT_EQ(config.at("group_size"), group);
        const StoredTensors back = unpack_gptq(testing::stored(tensors), config, "config.json");
        EXPECT_TRUE(at::equal(back.values("m.weight"), dequantize_blocks(matrix))) << bits << " " << group;
      }
}

TEST(GptqLayout, WantsScalesThatF16Holds) {
  const kernels::BlockCodes matrix = {at::ones({8, 32}, at::kChar), {at::full({8, 1}, 0.1f), {}, {}, {}}};
  EXPECT_THROW(pack_gptq(matrix, 4, GptqVersion::kFirst), ConfigError);
}

TEST(GptqLayout, IsReadInBothVersions) {
  for (const auto& [format, zero] : {std::pair{"gptq", 8}, std::pair{"gptq_v2", 7}}) {
    const Json config = {{"quant_method", "gptq"}, {"bits", 4}, {"checkpoint_format", format}};
    const StoredTensors plain = unpack_gptq(testing::stored(gptq()), config, "config.json");
    EXPECT_EQ(plain.shapes.size(), 1u);
    EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{8, 16}));
    const at::Tensor w = plain.values("m.weight");
    for (int64_t o = 0; o < 8; ++o)
      for (int64_t i = 0; i < 16; ++i)
        EXPECT_EQ(w[o][i].item<float>(), static_cast<float>((i - zero) * (i % 2 * 8 + o + 1))) << format;
  }
}

TEST(GptqLayout, WhatDoesNotFitTogetherIsRefused) {
  const auto refused = [](const std::string& name, const at::Tensor& tensor, const Json& config) {
    Tensors tensors = gptq();
    tensors[name] = tensor;
    EXPECT_THROW(unpack_gptq(testing::stored(tensors), config, "config.json"), DataError) << name;
  };
  const Json config = {{"quant_method", "gptq"}, {"bits", 4}};
  refused("m.scales", at::ones({2, 7}), config);
  refused("m.qzeros", at::ones({1, 1}, at::kInt), config);
  refused("m.g_idx", at::ones({15}, at::kInt), config);
  refused("x", at::ones({1}), {{"bits", 3}});
  refused("x", at::ones({1}), {{"bits", 4}, {"checkpoint_format", "marlin"}});
  Tensors far = gptq();
  far["m.g_idx"] = at::full({16}, 2, at::kInt);
  EXPECT_THROW(unpack_gptq(testing::stored(far), config, "config.json").values("m.weight"), DataError);
}

}  // namespace retort::formats
