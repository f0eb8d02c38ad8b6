#include "formats/ggml_blocks.h"

#include "formats/ggml_codec.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>

#include "core/random.h"
#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::expect_refused;
using testing::same_bits;

// Those whose codes are integers under scales that ggml's own formula finds, and the plainest two of them.
const std::vector<GgmlType> kCoded = {GgmlType::Q8_0,  GgmlType::Q4_0,  GgmlType::Q5_0,
                                      GgmlType::MXFP4, GgmlType::Q4_K,  GgmlType::Q5_K,
                                      GgmlType::Q6_K,  GgmlType::TQ1_0, GgmlType::TQ2_0};
const std::vector<GgmlType> kPlain = {GgmlType::Q8_0, GgmlType::Q4_0};

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
  for (const char* name :
       {"q8_0", "q4_0", "bf16", "f16", "q4_1", "q5_0", "q6_K", "mxfp4", "tq1_0", "tq2_0"}) {
    std::string type = name;
    std::ranges::transform(type, type.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
    const PackedTensor packed = pack(ggml_type_named(type).type, x);
    const std::string golden =
        read_text(testing::test_data() / "quant-golden" / (std::string(name) + ".bin"));
    EXPECT_TRUE(text(packed) == golden) << name;
    EXPECT_EQ(packed.bytes.size(), packed_bytes(packed.type, packed.shape));
    EXPECT_EQ(static_cast<uint64_t>(packed.row_bytes()) * 8, packed.bytes.size());
  }
}

// Q4_K and Q5_K search for their scales in a way of their own, so bytes differ and the error is what must be
// equal; the blocks themselves are read as llama.cpp reads them (its own bytes here; tests/clients).
TEST(GgmlBlocks, SearchedScalesAreAsGoodAsLlamaCpps) {
  RETORT_NEEDS_TEST_DATA();
  const at::Tensor x = golden_input();
  const auto error = [&](const at::Tensor& y) { return ((y - x).norm() / x.norm()).item<double>(); };
  for (const char* name : {"q4_K", "q5_K"}) {
    const GgmlType type = std::string(name) == "q4_K" ? GgmlType::Q4_K : GgmlType::Q5_K;
    const std::string golden =
        read_text(testing::test_data() / "quant-golden" / (std::string(name) + ".bin"));
    const auto bytes = std::as_bytes(std::span(golden.data(), golden.size()));
    const double theirs = error(unpack(type, bytes, x.sizes())), ours = error(unpack(pack(type, x)));
    EXPECT_LT(ours, 1.01 * theirs) << name << ": " << theirs;
    EXPECT_GT(ours, 0.90 * theirs) << name << ": " << theirs;
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
  for (const GgmlType type : kPlain) {
    const kernels::BlockCodes blocks = quantize_blocks(type, x);
    const float* values = x.const_data_ptr<float>();
    const int8_t* codes = blocks.codes.const_data_ptr<int8_t>();
    for (int64_t b = 0; b < blocks.scales.scale.numel(); ++b) {
      const PlainBlock plain =
          type == GgmlType::Q8_0 ? plain_q8_0(values + b * 32) : plain_q4_0(values + b * 32);
      const float scale = blocks.scales.scale.const_data_ptr<float>()[b];
      ASSERT_EQ(std::memcmp(&scale, &plain.scale, sizeof scale), 0)
          << b << ": " << scale << " " << plain.scale;
      for (int j = 0; j < 32; ++j)
        ASSERT_EQ(codes[b * 32 + j], plain.codes[j]) << "block " << b << " at " << j;
    }
  }
}

// Rows that every block divides, within what an f16 scale of any type reaches.
at::Tensor wide_rows() {
  return at::cat({awkward().view({10, 256}).clamp(-6e4, 6e4), normals({30, 256}), normals({8, 256}, 1e-6)});
}

TEST(GgmlBlocks, PackingCodesEqualsPackingValues) {
  const at::Tensor x = wide_rows().view({4, 12, 256});
  for (const GgmlType type : kCoded) {
    const kernels::BlockCodes blocks = quantize_blocks(type, x);
    const PackedTensor packed = pack(type, x);
    EXPECT_TRUE(text(pack_blocks(type, blocks)) == text(packed)) << ggml_type_info(type).name;
    EXPECT_TRUE(same_bits(unpack(packed), kernels::dequantize_blocks(blocks))) << ggml_type_info(type).name;
    const int64_t group = blocks.codes.size(-1) / blocks.scales.scale.size(-1);
    at::Tensor product =
        blocks.codes.to(at::kFloat).view({4, 12, -1, group}) * blocks.scales.scale.unsqueeze(-1);
    if (blocks.scales.offset.defined()) product = product + blocks.scales.offset.unsqueeze(-1);
    EXPECT_TRUE(same_bits(unpack(packed), product.view({4, 12, 256}))) << ggml_type_info(type).name;
  }
}

// Scales first, codes later, a column at a time under its group's scale: the same as both at once.
TEST(GgmlBlocks, ColumnsRoundUnderScalesThatWereFixedBefore) {
  const at::Tensor x = wide_rows();
  for (const GgmlType type : kCoded) {
    const kernels::BlockCodes whole = quantize_blocks(type, x);
    const kernels::BlockScales scales = fit_blocks(type, x);
    EXPECT_TRUE(same_bits(scales.scale, whole.scales.scale));
    const int64_t group = x.size(1) / scales.scale.size(1);
    for (const int64_t column : {0, 31, 32, 100, 255}) {
      const at::Tensor codes =
          kernels::round_codes(x.narrow(1, column, 1), scales.group(column / group), block_rounding(type));
      EXPECT_TRUE(same_bits(codes, whole.codes.narrow(1, column, 1).contiguous()))
          << ggml_type_info(type).name;
    }
    const int64_t half = 128 / ggml_type_info(type).block * ggml_type_info(type).block;
    if (half == 0) continue;  // a block is the whole row
    const kernels::BlockScales parts =
        kernels::concatenate({fit_blocks(type, x.slice(1, 0, half)), fit_blocks(type, x.slice(1, half))});
    EXPECT_TRUE(text(pack_blocks(type, {whole.codes, parts})) == text(pack_blocks(type, whole)));
  }
}

// Formulas whose largest element comes back exactly find the same scale in their own values.
TEST(GgmlBlocks, QuantizingItsOwnOutputChangesNothing) {
  for (const GgmlType type :
       {GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::MXFP4, GgmlType::TQ1_0, GgmlType::TQ2_0}) {
    const kernels::BlockCodes first = quantize_blocks(type, normals({300, 256}));
    const at::Tensor once = kernels::dequantize_blocks(first);
    const kernels::BlockCodes second = quantize_blocks(type, once);
    EXPECT_TRUE(same_bits(first.codes, second.codes)) << ggml_type_info(type).name;
    EXPECT_TRUE(same_bits(first.scales.scale, second.scales.scale)) << ggml_type_info(type).name;
    EXPECT_TRUE(same_bits(kernels::dequantize_blocks(second), once)) << ggml_type_info(type).name;
  }
}

// Every code of a type, under scales of any exponent, comes back: bits lie where the reader looks for them.
TEST(GgmlBlocks, EveryCodeOfATypeSurvives) {
  for (const GgmlType type : {GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q5_0, GgmlType::Q3_K, GgmlType::Q2_K,
                              GgmlType::TQ1_0, GgmlType::TQ2_0, GgmlType::MXFP4}) {
    const kernels::Rounding r = block_rounding(type);
    at::Tensor codes = at::empty({9, 512}, at::kChar);
    const Random random(5, "every_code");
    for (int64_t i = 0; i < codes.numel(); ++i) {
      int code = r.lowest + static_cast<int>(random.below(static_cast<uint64_t>(i),
                                                          static_cast<uint64_t>(r.highest - r.lowest + 1)));
      if (r.rule == kernels::RoundRule::kOdd) code = code / 2 * 2 + (code < 0 ? -1 : 1);
      if (r.rule == kernels::RoundRule::kFloat4) {
        constexpr int kTwice[] = {0, 1, 2, 3, 4, 6, 8, 12};
        code = kTwice[std::abs(code) % 8] * (code < 0 ? -1 : 1);
      }
      codes.mutable_data_ptr<int8_t>()[i] = static_cast<int8_t>(std::clamp(code, r.lowest, r.highest));
    }
    const at::Tensor scale = at::exp2(at::arange(9, at::kFloat).sub(11)).unsqueeze(1);  // one a row
    const kernels::BlockCodes blocks{codes, {scale, {}, {}, {}}};
    EXPECT_TRUE(same_bits(unpack(pack_blocks(type, blocks)), kernels::dequantize_blocks(blocks)))
        << ggml_type_info(type).name;
  }
}

// An importance moves a K-quant's error to the columns that matter least.
TEST(GgmlBlocks, ImportanceLowersTheErrorOfImportantColumns) {
  const at::Tensor x = normals({64, 256});
  at::Tensor importance = at::ones({256});
  importance.slice(0, 0, 256, 2) *= 100.0;
  for (const GgmlType type : {GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K}) {
    const auto weighted = [&](const kernels::BlockCodes& q) {
      return ((kernels::dequantize_blocks(q) - x).square() * importance).sum().item<double>();
    };
    EXPECT_LT(weighted(quantize_blocks(type, x, importance)), weighted(quantize_blocks(type, x)));
    EXPECT_THROW(quantize_blocks(type, x, at::ones({255})), ShapeError);
  }
}

// Random bytes are a legal block of every type: nothing is out of bounds, and the length is checked.
TEST(GgmlBlocks, AnyBytesAreRead) {
  for (const std::string& name : ggml_type_names()) {
    GgmlType type = GgmlType::F32;
    for (int t = 0; t < 48; ++t) try {
        if (ggml_type_info(static_cast<GgmlType>(t)).name == name) type = static_cast<GgmlType>(t);
      } catch (const DataError&) {
      }
    const std::vector<int64_t> shape = {3, 512};
    std::vector<std::byte> bytes(packed_bytes(type, shape));
    const Random random(6, name);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.below(i, 256));
    EXPECT_EQ(unpack(type, bytes, shape).sizes(), shape) << name;
    bytes.pop_back();
    EXPECT_THROW(unpack(type, bytes, shape), DataError) << name;
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
  for (const GgmlType type : kCoded)
    for (const float bad : {std::nanf(""), INFINITY}) {
      at::Tensor x = normals({1, 512});
      x[0][300] = bad;
      const int64_t block = ggml_type_info(type).block, begin = 300 / block * block;
      const kernels::BlockCodes blocks = quantize_blocks(type, x);
      const at::Tensor y = kernels::dequantize_blocks(blocks);
      EXPECT_TRUE(y.slice(1, 0, begin).isfinite().all().item<bool>());
      EXPECT_FALSE(y.slice(1, begin, begin + block).isfinite().any().item<bool>())
          << ggml_type_info(type).name;
      expect_refused<ShapeError>("pack", [&] { pack_blocks(type, blocks); }, {"must be finite"});
    }
}

TEST(GgmlBlocks, StridedAndEmptyInputs) {
  const at::Tensor x = normals({256, 33}).t();  // [33, 256], not dense in memory
  for (const GgmlType type : kCoded) {
    EXPECT_TRUE(text(pack(type, x)) == text(pack(type, x.contiguous())));
    EXPECT_TRUE(same_bits(quantize_blocks(type, x).codes, quantize_blocks(type, x.contiguous()).codes));
    const kernels::BlockCodes none = quantize_blocks(type, at::empty({0, 256}));
    EXPECT_EQ(none.scales.scale.sizes(), (std::vector<int64_t>{0, quantize_blocks(type, at::zeros({1, 256})).scales.scale.size(1)}));
    EXPECT_TRUE(pack_blocks(type, none).bytes.empty());
    EXPECT_EQ(kernels::dequantize_blocks(none).sizes(), (std::vector<int64_t>{0, 256}));
  }
}

TEST(GgmlBlocks, RefusesWhatDoesNotFit) {
  const at::Tensor x = normals({2, 64});
  EXPECT_THROW(quantize_blocks(GgmlType::Q4_0, normals({2, 48})), ShapeError);
  EXPECT_THROW(quantize_blocks(GgmlType::F16, x), ShapeError);
  EXPECT_THROW(quantize_blocks(GgmlType::Q8_0, x.to(at::kDouble)), ShapeError);
  EXPECT_THROW(pack(GgmlType::Q8_0, normals({2, 48})), DataError);
  expect_refused<DataError>("Q2_K", [&] { pack(GgmlType::Q2_K, normals({256})); }, {"q2_k (10)", "f32, f16"});
  expect_refused<DataError>("IQ1_S", [&] { unpack(GgmlType::IQ1_S, {}, std::vector<int64_t>{0}); },
                            {"iq1_s (19)"});
  expect_refused<ShapeError>("IQ4_NL", [&] { fit_blocks(GgmlType::IQ4_NL, normals({32})); },
                             {"iq4_nl", "q8_0"});
  expect_refused<ShapeError>("Q3_K", [&] { fit_blocks(GgmlType::Q3_K, normals({256})); },
                             {"a grid gives them"});
  expect_refused<DataError>("99", [] { ggml_type_info(static_cast<GgmlType>(99)); }, {"type 99", "q8_0"});
  expect_refused<ConfigError>("q4", [] { ggml_type_named("q4_O"); }, {"did you mean \"q4_0\"", "bf16"});
  EXPECT_THROW(ggml_type_named("q3_k"), ConfigError);  // it is read, not written
  const std::vector<int64_t> huge = {int64_t{1} << 40, int64_t{1} << 30}, negative = {-32};
  EXPECT_THROW(packed_bytes(GgmlType::Q4_0, huge), DataError);
  EXPECT_THROW(packed_bytes(GgmlType::F32, negative), DataError);
  const std::vector<int64_t> shape = {2, 64};
  const PackedTensor packed = pack(GgmlType::Q8_0, x);
  EXPECT_THROW(unpack(GgmlType::Q8_0, std::span(packed.bytes).first(135), shape), DataError);
}

TEST(GgmlBlocks, RefusesCodesAndScalesThatNoFileHolds) {
  kernels::BlockCodes blocks = quantize_blocks(GgmlType::Q4_0, normals({2, 64}));
  blocks.scales.scale[0][0] = 1.0f + 1.0f / 4096;  // not an f16 number: the file would hold other weights
  expect_refused<ShapeError>("scale", [&] { pack_blocks(GgmlType::Q4_0, blocks); },
                             {"every scale must be an f16"});
  blocks.scales.scale[0][0] = 1.0f;
  blocks.codes[0][0] = 8;
  expect_refused<ShapeError>("code", [&] { pack_blocks(GgmlType::Q4_0, blocks); }, {"-8 .. 7"});
  blocks.codes = blocks.codes.slice(1, 0, 63);
  EXPECT_THROW(pack_blocks(GgmlType::Q4_0, blocks), ShapeError);
  kernels::BlockCodes k = quantize_blocks(GgmlType::Q4_K, normals({2, 256}));
  k.scales.header = at::Tensor();
  expect_refused<ShapeError>("header", [&] { pack_blocks(GgmlType::Q4_K, k); }, {"come with their header"});
  kernels::BlockCodes mx = quantize_blocks(GgmlType::MXFP4, normals({2, 64}));
  mx.scales.scale[1][1] = 3.0f;
  expect_refused<ShapeError>("power", [&] { pack_blocks(GgmlType::MXFP4, mx); }, {"power of two"});
}

TEST(GgmlBlocks, TheNumberOfThreadsChangesNothing) {
  const at::Tensor x = normals({257, 4096});
  const int threads = at::get_num_threads();
  for (const GgmlType type : kCoded) {
    const std::string many = text(pack(type, x));
    at::set_num_threads(1);
    const std::string one = text(pack(type, x));
    at::set_num_threads(threads);
    EXPECT_TRUE(one == many);
  }
}

// Every f16 number, every midpoint of two, and their neighbours in f32.
TEST(AsHalf, RoundsAsTheConversion) {
  const auto expect_same = [](float x) {
    ASSERT_EQ(std::bit_cast<uint32_t>(as_half(x)), std::bit_cast<uint32_t>(static_cast<float>(c10::Half(x))))
        << x;
  };
  for (uint16_t bits = 0; bits < 0x7c00; ++bits) {
    const float x = c10::Half(bits, c10::Half::from_bits()),
                next = bits == 0x7bff ? 65536.0f
                                      : static_cast<float>(c10::Half(bits + 1, c10::Half::from_bits()));
    for (const float v : {x, (x + next) / 2})
      for (const float near : {v, std::nextafter(v, 0.0f), std::nextafter(v, 1e30f)})
        for (const float sign : {1.0f, -1.0f}) expect_same(sign * near);
  }
  for (const float x : {1e30f, 3e38f, INFINITY, -INFINITY, 1e-30f, 1e-40f}) expect_same(x);
  EXPECT_TRUE(std::isnan(as_half(NAN)));
}

// Six bits of scale and minimum, packed two ways round, come back.
TEST(KQuantHeader, SixBitPairsComeBack) {
  ScaleAndMinimum pairs[8];
  for (int j = 0; j < 8; ++j)
    pairs[j] = {static_cast<uint8_t>((37 * j + 11) % 64), static_cast<uint8_t>((23 * j + 60) % 64)};
  uint8_t bytes[12];
  store_six_bits(pairs, bytes);
  for (int j = 0; j < 8; ++j) {
    EXPECT_EQ(six_bits(bytes, j).scale, pairs[j].scale) << j;
    EXPECT_EQ(six_bits(bytes, j).minimum, pairs[j].minimum) << j;
  }
}

}  // namespace
}  // namespace retort::formats
