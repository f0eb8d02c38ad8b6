#include "models/hf_quantized.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "formats/packed_words.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;
using Tensors = std::map<std::string, at::Tensor>;

ForeignFile file_of(const Tensors& tensors) {
  ForeignFile out{"folder", {}, [tensors](const std::string& name) { return tensors.at(name); }};
  for (const auto& [name, tensor] : tensors) out.shapes[name] = tensor.sizes().vec();
  return out;
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

Tensors gptq() {
  const at::Tensor codes = at::arange(8 * 16, at::kInt).remainder(16).view({8, 16});  // [out, in]
  return {{"m.qweight", formats::pack_words(codes, 4).t()},
          {"m.qzeros", formats::pack_words(at::full({2, 8}, 7, at::kInt), 4)},
          {"m.scales", at::arange(1, 17).view({2, 8}).to(at::kHalf)},
          {"m.g_idx", at::arange(16, at::kInt).remainder(2)}};  // groups in any order
}

void expect_refused(Tensors tensors, const std::string& name, const at::Tensor& tensor, const Json& config) {
  tensors[name] = tensor;
  EXPECT_THROW(dequantized(file_of(tensors), config, "config.json"), DataError) << name;
}

}  // namespace

TEST(HfQuantized, PackedWordsBecomeTheMatrix) {
  const ForeignFile plain = dequantized(file_of(packed()), compressed(4), "config.json");
  EXPECT_EQ(plain.shapes.size(), 2u);
  EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{6, 32}));
  EXPECT_TRUE(at::equal(plain.values("norm.weight"), at::ones({6})));
  const at::Tensor w = plain.values("m.weight");
  for (int64_t o = 0; o < 6; ++o)
    for (int64_t i = 0; i < 32; ++i)
      EXPECT_EQ(w[o][i].item<float>(), static_cast<float>(((o * 32 + i) % 16 - 8) * (2 * o + i / 16 + 1)));
}

TEST(HfQuantized, PlainCodesBecomeTheMatrix) {
  const at::Tensor codes = at::arange(-8, 8).view({4, 4});
  for (const at::ScalarType dtype : {at::kChar, at::kFloat8_e4m3fn})
    for (const at::Tensor& scale : {at::full({4, 1}, 0.5), at::full({1}, 0.5)}) {
      const Tensors tensors = {{"m.weight", codes.to(at::kFloat).to(dtype)}, {"m.weight_scale", scale}};
      const ForeignFile plain = dequantized(file_of(tensors), compressed(8), "config.json");
      EXPECT_EQ(plain.shapes.size(), 1u);
      EXPECT_TRUE(at::equal(plain.values("m.weight"), codes.to(at::kFloat) * 0.5));
    }
}

TEST(HfQuantized, GptqIsReadInBothVersions) {
  for (const auto& [format, zero] : {std::pair{"gptq", 8}, std::pair{"gptq_v2", 7}}) {
    const Json config = {{"quant_method", "gptq"}, {"bits", 4}, {"checkpoint_format", format}};
    const ForeignFile plain = dequantized(file_of(gptq()), config, "config.json");
    EXPECT_EQ(plain.shapes.size(), 1u);
    EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{8, 16}));
    const at::Tensor w = plain.values("m.weight");
    for (int64_t o = 0; o < 8; ++o)
      for (int64_t i = 0; i < 16; ++i)
        EXPECT_EQ(w[o][i].item<float>(), static_cast<float>((i - zero) * (i % 2 * 8 + o + 1))) << format;
  }
}

// Codes of rows 0 to 7 as (row + 2 column) mod 3 - 1; a byte holds rows r, r + 2, r + 4 and r + 6.
Tensors ternary(const at::Tensor& scale) {
  at::Tensor bytes = at::zeros({2, 5}, at::kByte);
  for (int64_t o = 0; o < 8; ++o)
    for (int64_t i = 0; i < 5; ++i) bytes[o % 2][i] += (o + 2 * i) % 3 << 2 * (o / 2);
  return {{"m.weight", bytes}, {"m.weight_scale", scale}, {"norm.weight", at::ones({5})}};
}

TEST(HfQuantized, TernaryBytesBecomeTheMatrix) {
  for (const auto& [kind, scale] : {std::pair{"autobitlinear", 0.25f}, {"bitlinear", 4.0f}}) {
    const Json config = {
        {"quant_method", "bitnet"}, {"linear_class", kind}, {"quantization_mode", "offline"}};
    const ForeignFile plain =
        dequantized(file_of(ternary(at::full({1}, scale).to(at::kBFloat16))), config, "config.json");
    EXPECT_EQ(plain.shapes.size(), 2u);
    EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{8, 5}));
    const at::Tensor w = plain.values("m.weight");
    for (int64_t o = 0; o < 8; ++o)
      for (int64_t i = 0; i < 5; ++i)
        EXPECT_EQ(w[o][i].item<float>(), 0.25f * static_cast<float>((o + 2 * i) % 3 - 1)) << kind;
  }
}

TEST(HfQuantized, RefusesTernaryFoldersThatMeanSomethingElse) {
  const Json good = {{"quant_method", "bitnet"}, {"linear_class", "autobitlinear"}};
  const Tensors tensors = ternary(at::ones({1}));
  EXPECT_NO_THROW(dequantized(file_of(tensors), good, "config.json"));
  for (const auto& [key, value] : {std::pair<const char*, Json>{"quantization_mode", "online"},
                                   {"quantization_mode", 3},
                                   {"linear_class", "linear"},
                                   {"use_rms_norm", true}}) {
    Json bad = good;
    bad[key] = value;
    EXPECT_THROW(dequantized(file_of(tensors), bad, "config.json"), DataError) << key;
  }
  expect_refused(tensors, "m.weight_scale", at::ones({2}), good);
  expect_refused(tensors, "m.weight", at::ones({2}, at::kByte), good);
  for (const at::Tensor& weight : {at::full({2, 5}, 255, at::kByte), at::ones({2, 5})}) {
    Tensors wrong = tensors;
    wrong["m.weight"] = weight;
    EXPECT_THROW(dequantized(file_of(wrong), good, "config.json").values("m.weight"), DataError);
  }
}

TEST(HfQuantized, RefusesWhatDoesNotFitTogether) {
  const Json four = compressed(4), config = {{"quant_method", "gptq"}, {"bits", 4}};
  expect_refused(packed(), "m.weight_shape", at::tensor({6, 33}, at::kLong), four);
  expect_refused(packed(), "m.weight_shape", at::tensor({7, 32}, at::kLong), four);
  expect_refused(packed(), "m.weight_shape", at::tensor({6, -1}, at::kLong), four);
  expect_refused(packed(), "m.weight_scale", at::ones({6, 5}), four);
  expect_refused(packed(), "m.weight_scale", at::ones({5, 2}), four);
  expect_refused(packed(), "m.weight_zero_point", at::ones({6, 2}), four);
  expect_refused(packed(), "x", at::ones({1}), compressed(3));
  expect_refused(packed(), "x", at::ones({1}), {{"quant_method", "awq"}});
  expect_refused(gptq(), "m.scales", at::ones({2, 7}), config);
  expect_refused(gptq(), "m.qzeros", at::ones({1, 1}, at::kInt), config);
  expect_refused(gptq(), "m.g_idx", at::ones({15}, at::kInt), config);
  Tensors lacking = packed();
  lacking.erase("m.weight_scale");
  EXPECT_THROW(dequantized(file_of(lacking), four, "config.json"), DataError);
  Tensors far = gptq();
  far["m.g_idx"] = at::full({16}, 2, at::kInt);
  EXPECT_THROW(dequantized(file_of(far), config, "config.json").values("m.weight"), DataError);
}

}  // namespace retort::models
