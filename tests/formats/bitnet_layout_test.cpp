#include "formats/bitnet_layout.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/formats/stored_tensors.h"

namespace retort::formats {
namespace {

using testing::Tensors;

// Codes of rows 0 to 7 as (row + 2 column) mod 3 - 1; a byte holds rows r, r + 2, r + 4 and r + 6.
Tensors ternary(const at::Tensor& scale) {
  at::Tensor bytes = at::zeros({2, 5}, at::kByte);
  for (int64_t o = 0; o < 8; ++o)
    for (int64_t i = 0; i < 5; ++i) bytes[o % 2][i] += (o + 2 * i) % 3 << 2 * (o / 2);
  return {{"m.weight", bytes}, {"m.weight_scale", scale}, {"norm.weight", at::ones({5})}};
}

}  // namespace

TEST(BitnetLayout, BytesBecomeTheMatrix) {
  for (const auto& [kind, scale] : {std::pair{"autobitlinear", 0.25f}, {"bitlinear", 4.0f}}) {
    const Json config = {
        {"quant_method", "bitnet"}, {"linear_class", kind}, {"quantization_mode", "offline"}};
    const StoredTensors plain = unpack_bitnet(
        testing::stored(ternary(at::full({1}, scale).to(at::kBFloat16))), config, "config.json");
    EXPECT_EQ(plain.shapes.size(), 2u);
    EXPECT_EQ(plain.shapes.at("m.weight"), (std::vector<int64_t>{8, 5}));
    const at::Tensor w = plain.values("m.weight");
    for (int64_t o = 0; o < 8; ++o)
      for (int64_t i = 0; i < 5; ++i)
        EXPECT_EQ(w[o][i].item<float>(), 0.25f * static_cast<float>((o + 2 * i) % 3 - 1)) << kind;
  }
}

TEST(BitnetLayout, FoldersThatMeanSomethingElseAreRefused) {
  const Json good = {{"quant_method", "bitnet"}, {"linear_class", "autobitlinear"}};
  const Tensors tensors = ternary(at::ones({1}));
  const auto refused = [&](const std::string& name, const at::Tensor& tensor, const Json& config) {
    Tensors wrong = tensors;
    wrong[name] = tensor;
    EXPECT_THROW(unpack_bitnet(testing::stored(wrong), config, "config.json"), DataError) << name;
  };
  EXPECT_NO_THROW(unpack_bitnet(testing::stored(tensors), good, "config.json"));
  for (const auto& [key, value] : {std::pair<const char*, Json>{"quantization_mode", "online"},
                                   {"quantization_mode", 3},
                                   {"linear_class", "linear"},
                                   {"use_rms_norm", true}}) {
    Json bad = good;
    bad[key] = value;
    EXPECT_THROW(unpack_bitnet(testing::stored(tensors), bad, "config.json"), DataError) << key;
  }
  refused("m.weight_scale", at::ones({2}), good);
  refused("m.weight", at::ones({2}, at::kByte), good);
  for (const at::Tensor& weight : {at::full({2, 5}, 255, at::kByte), at::ones({2, 5})}) {
    Tensors wrong = tensors;
    wrong["m.weight"] = weight;
    EXPECT_THROW(unpack_bitnet(testing::stored(wrong), good, "config.json").values("m.weight"), DataError);
  }
}

}  // namespace retort::formats
