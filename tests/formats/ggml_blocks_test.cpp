#include "formats/ggml_blocks.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <cstring>

#include "core/random.h"
#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::expect_refused;
using testing::same_bits;

const std::vector<GgmlType> kBlockTypes = {GgmlType::Q8_0, GgmlType::Q4_0};

at::Tensor normals(std::vector<int64_t> shape, double std = 0.02) {
  at::Tensor x = at::empty(shape);
  Random(7, "ggml_blocks_test").fill_normal(x, std);
  return x;
}

at::Tensor golden_input() {
  const std::string bytes = read_text(testing::test_data() / "quant-golden" / "input_f32_8x1024.bin");
  at::Tensor x = at::empty({8, 1024});
  EXPECT_EQ(bytes.size(), x.nbytes());
  std::memcpy(x.mutable_data_ptr(), bytes.data(), x.nbytes());
  return x;
}

std::string text(const PackedTensor& packed) {
  return {reinterpret_cast<const char*>(packed.bytes.data()), packed.bytes.size()};
}

TEST(GgmlBlocks, GoldenBytesOfLlamaCpp) {
  RETORT_NEEDS_TEST_DATA();
  const at::Tensor x = golden_input();
  for (const char* name : {"q8_0", "q4_0", "bf16", "f16"}) {
    const PackedTensor packed = pack(ggml_type_named(name).type, x);
    const std::string golden =
        read_text(testing::test_data() / "quant-golden" / (std::string(name) + ".bin"));
    EXPECT_TRUE(text(packed) == golden) << name;
    EXPECT_EQ(packed.bytes.size(), packed_bytes(packed.type, packed.shape));
    EXPECT_EQ(static_cast<uint64_t>(packed.row_bytes()) * 8, packed.bytes.size());
  }
}

// The formulas of docs/formats.md in their plainest form, one value at a time.
struct PlainBlock {
  std::vector<int> codes;
  float scale;
};
PlainBlock plain_q8_0(const float* x) {
  float amax = 0;
  for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
  const float d = amax / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  PlainBlock block{{}, static_cast<float>(c10::Half(d))};
  for (int j = 0; j < 32; ++j) {
    const volatile float v = x[j] * inverse;
    block.codes.push_back(static_cast<int>(std::round(v)));
  }
  return block;
}
PlainBlock plain_q4_0(const float* x) {
  float amax = 0, extreme = 0;
  for (int j = 0; j < 32; ++j)
    if (amax < std::fabs(x[j])) amax = std::fabs(x[j]), extreme = x[j];
  const float d = extreme / -8.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  PlainBlock block{{}, static_cast<float>(c10::Half(d))};
  for (int j = 0; j < 32; ++j) {
    const volatile float v = x[j] * inverse;
    block.codes.push_back(std::min(15, static_cast<int>(v + 8.5f)) - 8);
  }
  return block;
}

// Values on ties, signed zeros, equal magnitudes of both signs, subnormal and huge scales, beside plain
// noise.
at::Tensor awkward() {
  at::Tensor x = normals({40, 64}, 1.0);
  float* v = x.mutable_data_ptr<float>();
  const auto fill = [&](int block, auto value) {
    for (int j = 0; j < 32; ++j) v[block * 32 + j] = value(j);
  };
  fill(0, [](int) { return 0.0f; });
  fill(1, [](int) { return -0.0f; });
  fill(2, [](int j) { return j % 2 ? -1.0f : 1.0f; });
  fill(3, [](int j) { return j % 2 ? 1.0f : -1.0f; });
  fill(4, [](int j) { return j == 0 ? 127.0f : static_cast<float>(j) - 16.5f; });        // Q8_0 ties
  fill(5, [](int j) { return j == 31 ? -8.0f : static_cast<float>(j) / 2.0f - 7.5f; });  // Q4_0 ties
  fill(6, [](int j) { return 1e-6f * static_cast<float>(j - 15); });  // f16 subnormal scale
  fill(7, [](int j) { return 3e5f * static_cast<float>(j - 15); });
  fill(8, [](int j) { return j == 31 ? -1e-3f : 0.0f; });
  fill(9, [](int j) { return j < 31 ? 1e-9f : 1.0f; });
  return x;
}

TEST(GgmlBlocks, EqualsThePlainFormulas) {
  const at::Tensor x = at::cat({awkward(), normals({512, 64})});
  for (const GgmlType type : kBlockTypes) {
    const BlockCodes blocks = quantize_blocks(type, x);
    const float* values = x.const_data_ptr<float>();
    const int8_t* codes = blocks.codes.const_data_ptr<int8_t>();
    for (int64_t b = 0; b < blocks.scales.numel(); ++b) {
      const PlainBlock plain =
          type == GgmlType::Q8_0 ? plain_q8_0(values + b * 32) : plain_q4_0(values + b * 32);
      const float scale = blocks.scales.const_data_ptr<float>()[b];
      ASSERT_EQ(std::memcmp(&scale, &plain.scale, sizeof scale), 0)
          << b << ": " << scale << " " << plain.scale;
      for (int j = 0; j < 32; ++j)
        ASSERT_EQ(codes[b * 32 + j], plain.codes[j]) << "block " << b << " at " << j;
    }
  }
}

TEST(GgmlBlocks, PackingCodesEqualsPackingValues) {
  const at::Tensor x = awkward().view({4, 10, 64});
  for (const GgmlType type : kBlockTypes) {
    const BlockCodes blocks = quantize_blocks(type, x);
    const PackedTensor packed = pack(type, x);
    EXPECT_TRUE(text(pack_blocks(type, blocks)) == text(packed));
    EXPECT_TRUE(same_bits(unpack(packed), dequantize_blocks(blocks)));
    const at::Tensor product = blocks.codes.to(at::kFloat).view({4, 10, 2, 32}) * blocks.scales.unsqueeze(-1);
    EXPECT_TRUE(same_bits(unpack(packed), product.view({4, 10, 64})));
  }
}

TEST(GgmlBlocks, QuantizingItsOwnOutputChangesNothing) {
  const at::Tensor x = normals({300, 96});
  for (const GgmlType type : kBlockTypes) {
    const BlockCodes first = quantize_blocks(type, x);
    const at::Tensor once = dequantize_blocks(first);
    const BlockCodes second = quantize_blocks(type, once);
    EXPECT_TRUE(same_bits(first.codes, second.codes));
    EXPECT_TRUE(same_bits(first.scales, second.scales));
    EXPECT_TRUE(same_bits(dequantize_blocks(second), once));
  }
}

TEST(GgmlBlocks, HandWrittenBlocks) {
  at::Tensor x = at::zeros({1, 32});
  // Q4_0 of zeros: d = f16(0 / -8) = -0.0, every q = 8.
  EXPECT_EQ(text(pack(GgmlType::Q4_0, x)), std::string("\x00\x80", 2) + std::string(16, '\x88'));
  EXPECT_EQ(text(pack(GgmlType::Q8_0, x)), std::string(34, '\0'));
  x[0][0] = -8.0f;  // d = 1
  x[0][1] = 7.0f;
  x[0][16] = 3.0f;
  std::string expected = std::string("\x00\x3c\xb0\x8f", 4) + std::string(14, '\x88');
  EXPECT_EQ(text(pack(GgmlType::Q4_0, x)), expected);
  x[0][0] = 8.0f;  // a positive extreme: d = -1
  EXPECT_EQ(text(pack(GgmlType::Q4_0, x)).substr(0, 4), std::string("\x00\xbc\x50\x81", 4));
}

TEST(GgmlBlocks, HalvesAndBrainFloatsRoundToEven) {
  const auto bits = [](uint32_t u) {
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
  };
  const at::Tensor x = at::tensor({bits(0x3f808000), bits(0x3f818000), bits(0x7f800001), bits(0xff800000)});
  EXPECT_EQ(text(pack(GgmlType::BF16, x)), std::string("\x80\x3f\x82\x3f\xc0\x7f\x80\xff", 8));
  const at::Tensor h = at::tensor({1.0f, 65504.0f, 1e6f, 5.9604645e-8f, 1.0f + 1.0f / 2048, -0.0f});
  EXPECT_EQ(text(pack(GgmlType::F16, h)),
            std::string("\x00\x3c\xff\x7b\x00\x7c\x01\x00\x00\x3c\x00\x80", 12));
  for (const GgmlType type : {GgmlType::F32, GgmlType::F16, GgmlType::BF16}) {
    const at::Tensor once = unpack(pack(type, normals({3, 5})));  // any row length
    EXPECT_TRUE(same_bits(unpack(pack(type, once)), once));
  }
}

TEST(GgmlBlocks, ANonFiniteValueSpoilsItsBlockAloud) {
  for (const GgmlType type : kBlockTypes)
    for (const float bad : {std::nanf(""), INFINITY}) {
      at::Tensor x = normals({1, 64});
      x[0][40] = bad;
      const at::Tensor y = dequantize_blocks(quantize_blocks(type, x));
      EXPECT_TRUE(y.slice(1, 0, 32).isfinite().all().item<bool>());
      EXPECT_FALSE(y.slice(1, 32, 64).isfinite().any().item<bool>());
    }
}

TEST(GgmlBlocks, StridedAndEmptyInputs) {
  const at::Tensor x = normals({64, 33}).t();  // [33, 64], not dense in memory
  for (const GgmlType type : kBlockTypes) {
    EXPECT_TRUE(text(pack(type, x)) == text(pack(type, x.contiguous())));
    EXPECT_TRUE(same_bits(quantize_blocks(type, x).codes, quantize_blocks(type, x.contiguous()).codes));
    const BlockCodes none = quantize_blocks(type, at::empty({0, 64}));
    EXPECT_EQ(none.scales.sizes(), (std::vector<int64_t>{0, 2}));
    EXPECT_TRUE(pack_blocks(type, none).bytes.empty());
    EXPECT_EQ(dequantize_blocks(none).sizes(), (std::vector<int64_t>{0, 64}));
  }
}

TEST(GgmlBlocks, RefusesWhatDoesNotFit) {
  const at::Tensor x = normals({2, 64});
  EXPECT_THROW(quantize_blocks(GgmlType::Q4_0, normals({2, 48})), ShapeError);
  EXPECT_THROW(quantize_blocks(GgmlType::F16, x), ShapeError);
  EXPECT_THROW(quantize_blocks(GgmlType::Q8_0, x.to(at::kDouble)), ShapeError);
  EXPECT_THROW(pack(GgmlType::Q8_0, normals({2, 48})), DataError);
  expect_refused<DataError>("Q6_K", [&] { pack(GgmlType::Q6_K, normals({256})); }, {"q6_k (14)", "f32, f16"});
  expect_refused<DataError>("99", [] { ggml_type_info(static_cast<GgmlType>(99)); }, {"type 99", "q8_0"});
  expect_refused<ConfigError>("q4", [] { ggml_type_named("q4_O"); }, {"did you mean \"q4_0\"", "bf16"});
  EXPECT_THROW(ggml_type_named("q6_k"), ConfigError);  // its size is known, its values are not
  const std::vector<int64_t> huge = {int64_t{1} << 40, int64_t{1} << 30}, negative = {-32};
  EXPECT_THROW(packed_bytes(GgmlType::Q4_0, huge), DataError);
  EXPECT_THROW(packed_bytes(GgmlType::F32, negative), DataError);
  const std::vector<int64_t> shape = {2, 64};
  const PackedTensor packed = pack(GgmlType::Q8_0, x);
  EXPECT_THROW(unpack(GgmlType::Q8_0, std::span(packed.bytes).first(135), shape), DataError);
}

TEST(GgmlBlocks, RefusesCodesAndScalesThatNoFileHolds) {
  BlockCodes blocks = quantize_blocks(GgmlType::Q4_0, normals({2, 64}));
  blocks.scales[0][0] = 1.0f + 1.0f / 4096;  // not an f16 number: the file would hold other weights
  expect_refused<ShapeError>("scale", [&] { pack_blocks(GgmlType::Q4_0, blocks); },
                             {"every scale must be an f16"});
  blocks.scales[0][0] = 1.0f;
  blocks.codes[0][0] = 8;
  expect_refused<ShapeError>("code", [&] { pack_blocks(GgmlType::Q4_0, blocks); }, {"-8 .. 7"});
  blocks.codes = blocks.codes.slice(1, 0, 63);
  EXPECT_THROW(pack_blocks(GgmlType::Q4_0, blocks), ShapeError);
}

TEST(GgmlBlocks, TheNumberOfThreadsChangesNothing) {
  const at::Tensor x = normals({257, 4096});
  const int threads = at::get_num_threads();
  for (const GgmlType type : kBlockTypes) {
    const std::string many = text(pack(type, x));
    at::set_num_threads(1);
    const std::string one = text(pack(type, x));
    at::set_num_threads(threads);
    EXPECT_TRUE(one == many);
  }
}

}  // namespace
}  // namespace retort::formats
