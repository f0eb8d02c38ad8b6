#include "models/hf_quantized.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "formats/packed_words.h"

namespace retort::models {
namespace {

using formats::Json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// One module in each of the layouts.
const std::map<std::string, at::Tensor>& tensors() {
  static const std::map<std::string, at::Tensor> table = {
      {"m.weight_packed", formats::pack_words(at::full({2, 8}, 9, at::kInt), 4)},
      {"m.weight_scale", at::ones({2, 1})},
      {"m.weight_shape", at::tensor({2, 8}, at::kLong)},
      {"n.qweight", formats::pack_words(at::full({8, 16}, 9, at::kInt), 4).t()},
      {"n.qzeros", formats::pack_words(at::full({1, 8}, 7, at::kInt), 4)},
      {"n.scales", at::ones({1, 8}, at::kHalf)},
      {"n.g_idx", at::zeros({16}, at::kInt)},
      {"b.weight", at::full({1, 3}, 0xAA, at::kByte)},
      {"b.weight_scale", at::ones({1})}};
  return table;
}

ForeignFile file_of(const std::string& module) {
  ForeignFile out{"folder", {}, [](const std::string& name) { return tensors().at(name); }};
  for (const auto& [name, tensor] : tensors())
    if (name.starts_with(module + ".")) out.shapes[name] = tensor.sizes().vec();
  return out;
}

}  // namespace

TEST(HfQuantized, TheMethodChoosesTheLayout) {
  const Json groups = {{"group_0", {{"weights", {{"num_bits", 4}}}}}};
  for (const auto& [module, config] :
       {std::pair<std::string, Json>{"m",
                                     {{"quant_method", "compressed-tensors"}, {"config_groups", groups}}},
        {"n", {{"quant_method", "gptq"}, {"bits", 4}}},
        {"b", {{"quant_method", "bitnet"}}}}) {
    const ForeignFile plain = dequantized(file_of(module), config, "config.json");
    ASSERT_EQ(plain.shapes.size(), 1u) << module;
    const at::Tensor w = plain.values(module + ".weight");
    EXPECT_EQ(plain.shapes.at(module + ".weight"), w.sizes().vec());
    EXPECT_TRUE(at::equal(w, at::ones_like(w))) << module;
  }
  EXPECT_THAT(
      [] {
        dequantized(file_of("m"), {{"quant_method", "awq"}}, "config.json");
      },
      ThrowsMessage<DataError>(HasSubstr("must be compressed-tensors, gptq or bitnet, got awq")));
}

}  // namespace retort::models
