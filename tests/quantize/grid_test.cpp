// Every test here walks the registry, so a new grid gets them with its row.
#include "quantize/grid.h"

#include <fstream>

#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using testing::same_bits;

// Gaussian rows, then rows that are hard: zeros, tiny values, rounding ties, an outlier, both extremes.
at::Tensor hard_rows() {
  at::Tensor x = at::empty({64, 256});
  Random(7, "test/rows").fill_normal(x, 0.02);
  x[1].zero_();
  x[2].mul_(1e-7);
  x[3].copy_(at::arange(256, at::kFloat).remainder(16).sub(8).mul(0.5));
  x[4][100] = 1.0;
  x[5].copy_(at::arange(256, at::kFloat).remainder(2).mul(2).sub(1));
  x[6].slice(0, 0, 32).zero_();
  return x;
}

at::Tensor fake_quantized(const Grid& grid, const at::Tensor& x) { return grid.dequantize(grid.quantize(x)); }

TEST(Grid, PackedFileHoldsTheValuesThatWereJudged) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    const formats::PackedTensor packed = formats::pack_blocks(grid.exports, grid.quantize(x));
    EXPECT_EQ(packed.type, grid.exports);
    EXPECT_TRUE(same_bits(formats::unpack(packed), fake_quantized(grid, x))) << grid.name;
  }
}

TEST(Grid, BitsPerWeightAreThoseOfThePackedBytes) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    const formats::PackedTensor packed = formats::pack_blocks(grid.exports, grid.quantize(x));
    EXPECT_DOUBLE_EQ(grid.bits_per_weight, 8.0 * static_cast<double>(packed.bytes.size()) / x.numel())
        << grid.name;
  }
}

TEST(Grid, RepeatsItself) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    const formats::BlockCodes a = grid.quantize(x), b = grid.quantize(x.clone());
    EXPECT_TRUE(same_bits(a.codes, b.codes) && same_bits(a.scales, b.scales)) << grid.name;
    EXPECT_TRUE(same_bits(a.scales, a.scales.to(at::kHalf).to(at::kFloat)))
        << grid.name << ": scales fit f16";
  }
}

TEST(Grid, GgmlFormulasAreIdempotent) {
  const at::Tensor x = hard_rows();
  for (const char* name : {"q8_0", "q4_0"}) {
    const Grid& grid = grids().at(name);
    const formats::BlockCodes once = grid.quantize(x), twice = grid.quantize(grid.dequantize(once));
    EXPECT_TRUE(at::equal(grid.dequantize(once), grid.dequantize(twice))) << name;
  }
}

// Relative RMS error on a Gaussian: .0054 and .086 (docs/quantization.md). With 2^19 values the sampling
// error of such a ratio is about 1/sqrt(2^20) = .1 %; 3 % is far above it and far below any wrong formula.
TEST(Grid, ErrorOnAGaussianIsTheKnownOne) {
  at::Tensor x = at::empty({512, 1024});
  Random(11, "test/gaussian").fill_normal(x, 0.02);
  for (const auto& [name, known] : {std::pair{"q8_0", 0.0054}, std::pair{"q4_0", 0.086}}) {
    const double error =
        (fake_quantized(grids().at(name), x) - x).norm().item<double>() / x.norm().item<double>();
    EXPECT_NEAR(error, known, 0.03 * known) << name;
  }
}

TEST(Grid, GoldenBytesAreGgmls) {
  RETORT_NEEDS_TEST_DATA();
  const Path folder = testing::test_data() / "quant-golden";
  const auto read = [](const Path& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  std::string input = read(folder / "input_f32_8x1024.bin");
  ASSERT_EQ(input.size(), 8u * 1024 * 4);
  const at::Tensor x = at::from_blob(input.data(), {8, 1024}, at::kFloat).clone();
  for (const Grid& grid : grids()) {
    const formats::PackedTensor packed = formats::pack_blocks(grid.exports, grid.quantize(x));
    const std::string bytes(reinterpret_cast<const char*>(packed.bytes.data()), packed.bytes.size());
    EXPECT_TRUE(bytes == read(folder / (grid.name + ".bin"))) << grid.name;
  }
}

TEST(Grid, MisfitNamesTensorRuleAndAlternatives) {
  const Grid& q4_0 = grids().at("q4_0");
  EXPECT_NO_THROW(check_fits(q4_0, "w", 96));
  try {
    check_fits(q4_0, "layers.0.ffn.down.weight", 100);
    FAIL() << "a row of 100 does not fit blocks of 32";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "[quantize] layers.0.ffn.down.weight: rows must be a multiple of 32 for q4_0, got 100; "
                 "grids that fit: none");
  }
}

TEST(Grid, UnknownNameListsTheKnown) {
  try {
    grids().at("q4_1");
    FAIL();
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    for (const std::string& name : grids().names()) EXPECT_NE(text.find(name), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace retort::quantize
