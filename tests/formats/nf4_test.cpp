#include "formats/nf4.h"

#include <ATen/Parallel.h>

#include "core/random.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "tests/testing.h"

namespace retort::formats {
namespace {

using testing::same_bits;

// bitsandbytes 0.50 on a tensor with a row of zeros, a tiny block and an outlier.
TEST(Nf4, IsThatOfBitsandbytesBitForBit) {
  RETORT_NEEDS_TEST_DATA();
  const SafetensorsFile golden(testing::test_data() / "finetune" / "nf4" / "nf4.safetensors");
  EXPECT_TRUE(same_bits(nf4_map(), golden.tensor("weight.quant_map")));
  EXPECT_TRUE(same_bits(byte_map(), golden.tensor("weight.nested_quant_map")));
  const Nf4Tensor packed = pack_nf4(golden.tensor("input"));
  EXPECT_TRUE(same_bits(packed.codes, golden.tensor("weight").view({-1})));
  EXPECT_TRUE(same_bits(packed.sizes, golden.tensor("weight.absmax")));
  EXPECT_TRUE(same_bits(packed.groups, golden.tensor("weight.nested_absmax")));
  const auto state = golden.bytes("weight.quant_state.bitsandbytes__nf4");
  const Json json = parse_json({reinterpret_cast<const char*>(state.data()), state.size()}, "quant_state");
  EXPECT_EQ(packed.offset, json.at("nested_offset").get<float>());
  EXPECT_TRUE(same_bits(unpack_nf4(packed), golden.tensor("dequantized")));
}

TEST(Nf4, TakesAnyShapeAndGivesItBack) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1}, {3, 21}, {300, 257}}) {
    at::Tensor x = at::empty(shape);
    Random(3, "nf4").fill_normal(x, 0.1);
    const at::Tensor y = unpack_nf4(pack_nf4(x));
    EXPECT_EQ(y.sizes(), x.sizes());
    // Half of the widest gap between codes, .304 / 2 of the largest in the block, and what its size is rounded by.
    EXPECT_LT((y - x).abs().max().item<double>(), 0.16 * x.abs().max().item<double>());
  }
}

TEST(Nf4, DoesNotDependOnThreads) {
  at::Tensor x = at::empty({1500, 1500});
  Random(3, "nf4").fill_normal(x, 0.1);
  const auto packed = [&](int threads) {
    const testing::Threads with(threads);
    return pack_nf4(x);
  };
  const Nf4Tensor one = packed(1), four = packed(4);
  EXPECT_EQ(one.offset, four.offset);
  EXPECT_TRUE(same_bits(one.sizes, four.sizes));
  EXPECT_TRUE(same_bits(one.codes, four.codes));
  EXPECT_NEAR(8.0 * static_cast<double>(one.bytes()) / 2.25e6, 4.127, 1e-3);
}

}  // namespace
}  // namespace retort::formats
