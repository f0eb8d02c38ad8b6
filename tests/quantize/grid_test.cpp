// Every test here walks the registry, so a new grid gets them with its row.
#include "quantize/grid.h"

#include <ATen/Parallel.h>

#include <fstream>

#include "core/random.h"
#include "quantize/hf_packing.h"
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

at::Tensor fake_quantized(const Grid& grid, const at::Tensor& x) {
  return dequantize_blocks(grid.quantize(x));
}

TEST(Grid, PackedFileHoldsTheValuesThatWereJudged) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    if (!grid.ggml) {
      EXPECT_THROW(grid.pack(grid.quantize(x)), ConfigError) << grid.name;
      EXPECT_EQ(layout_misfit("compressed-tensors", grid), "") << grid.name << " leaves for nowhere";
      continue;
    }
    const formats::PackedTensor packed = grid.pack(grid.quantize(x));
    EXPECT_EQ(packed.type, *grid.ggml);
    EXPECT_TRUE(same_bits(formats::unpack(packed), fake_quantized(grid, x))) << grid.name;
  }
}

TEST(Grid, BitsPerWeightAreThoseOfThePackedBytes) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    if (!grid.ggml) continue;
    const formats::PackedTensor packed = grid.pack(grid.quantize(x));
    EXPECT_DOUBLE_EQ(grid.bits_per_weight, 8.0 * static_cast<double>(packed.bytes.size()) / x.numel())
        << grid.name;
  }
}

TEST(Grid, RepeatsItselfWithAnyNumberOfThreads) {
  const at::Tensor x = hard_rows();
  const int threads = at::get_num_threads();
  for (const Grid& grid : grids()) {
    at::set_num_threads(1);
    const Quantized a = grid.quantize(x);
    at::set_num_threads(4);
    const Quantized b = grid.quantize(x.clone());
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(a.codes.view(at::kChar), b.codes.view(at::kChar))) << grid.name;
    EXPECT_TRUE(same_bits(a.scales.scale, b.scales.scale)) << grid.name;
  }
}

// One pass over runs of rows gives what codes and scales of the whole give, with any number of threads.
TEST(Grid, FakeQuantizesToTheValuesOfItsCodes) {
  const at::Tensor x = hard_rows().repeat({50, 1});  // more values than one thread takes
  const int threads = at::get_num_threads();
  for (const Grid& grid : grids()) {
    const at::Tensor part = grid.name == "q4_k" || grid.name == "q6_k" ? hard_rows() : x;  // slow searches
    const at::Tensor expected = fake_quantized(grid, part);
    for (const int number : {1, 3}) {
      at::set_num_threads(number);
      const at::Tensor values = at::empty_like(part);
      grid.fake_quantize(part, values);
      EXPECT_TRUE(same_bits(values, expected)) << grid.name;
    }
  }
  at::set_num_threads(threads);
}

// What GPTQ does: scales of a span fixed from the columns that it is of, then codes column by column.
TEST(Grid, SpansAndColumnsGiveTheSameAsTheWhole) {
  const at::Tensor x = at::cat({hard_rows(), hard_rows().flip(0)}, 1);
  for (const Grid& grid : grids()) {
    const int64_t in = x.size(1), span = grid.span == 0 ? in : grid.span;
    EXPECT_EQ(in % span, 0);
    std::vector<Scales> scales;
    std::vector<at::Tensor> codes;
    for (int64_t begin = 0; begin < in; begin += span) {
      const at::Tensor part = x.slice(1, begin, begin + span);
      scales.push_back(grid.fit(part, {}));
      const int64_t width = span / scales.back().groups();
      for (int64_t c = 0; c < span; ++c)
        codes.push_back(grid.round(part.narrow(1, c, 1), scales.back().group(c / width)));
    }
    const Quantized columns{at::cat(codes, 1), kernels::concatenate(scales)}, whole = grid.quantize(x);
    EXPECT_TRUE(same_bits(dequantize_blocks(columns), dequantize_blocks(whole))) << grid.name;
    if (!grid.ggml) continue;
    EXPECT_EQ(grid.pack(columns).bytes, grid.pack(whole).bytes) << grid.name;
  }
}

// Types whose own quantizer, given the values, finds the same values again: a stray llama-quantize is
// harmless.
TEST(Grid, SurvivesItsTypesOwnQuantizer) {
  at::Tensor x = at::empty({64, 512});
  Random(7, "test/idempotent").fill_normal(x, 0.02);
  for (const char* name : {"q8_0", "q4_0", "mxfp4", "ternary", "ternary_row", "seq_ternary", "binary"}) {
    const Grid& grid = grids().at(name);
    const at::Tensor values = fake_quantized(grid, x);
    EXPECT_TRUE(at::equal(formats::unpack(formats::pack(*grid.ggml, values)), values)) << name;
  }
}

// ggml's formulas; and every other grid has no code outside its range however hard the rows are.
TEST(Grid, CodesStayInRange) {
  const at::Tensor x = hard_rows();
  for (const Grid& grid : grids()) {
    const at::Tensor codes = grid.quantize(x).codes.to(at::kFloat);
    EXPECT_GE(codes.min().item<float>(), grid.rounding.lowest) << grid.name;
    EXPECT_LE(codes.max().item<float>(), grid.rounding.highest) << grid.name;
  }
}

// Relative RMS error on a Gaussian (docs/quantization.md). With 2^19 values the sampling
// error of such a ratio is about 1/sqrt(2^20) = .1 %; 3 % is far above it and far below any wrong formula.
TEST(Grid, ErrorOnAGaussianIsTheKnownOne) {
  at::Tensor x = at::empty({512, 1024});
  Random(11, "test/gaussian").fill_normal(x, 0.02);
  const std::vector<std::pair<const char*, double>> known_errors = {
      {"q8_0", 0.0054}, {"q4_0", 0.086},   {"q4_1", 0.078},  {"lsq4", 0.108},       {"lsq3", 0.201},
      {"seq2", 0.354},  {"ternary", 0.51}, {"binary", 0.60}, {"ternary_row", 0.51}, {"seq_ternary", 0.51}};
  for (const auto& [name, known] : known_errors) {
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
  for (const auto& [name, file] :
       {std::pair{"q8_0", "q8_0"}, {"q4_0", "q4_0"}, {"q6_k", "q6_K"}, {"mxfp4", "mxfp4"}}) {
    const Grid& grid = grids().at(name);
    const formats::PackedTensor packed = grid.pack(grid.quantize(x));
    const std::string bytes(reinterpret_cast<const char*>(packed.bytes.data()), packed.bytes.size());
    EXPECT_TRUE(bytes == read(folder / (std::string(file) + ".bin"))) << grid.name;
  }
}

// compressed-tensors' own numbers: amax / 7.5, and /127.5, halves to even, clipped to the range.
TEST(Grid, IntegersFollowCompressedTensors) {
  at::Tensor x = at::zeros({1, 32});
  x[0][0] = 15.0;   // 7.5 scales: clipped to 7
  x[0][1] = -15.0;  // -7.5: halves to even, -8
  x[0][2] = 5.0;    // 2.5 -> 2
  x[0][3] = 3.0;    // 1.5 -> 2
  const Quantized q = grids().at("int4_g32").quantize(x);
  EXPECT_EQ(q.scales.scale.item<float>(), 2.0f);
  const std::vector<int8_t> expected = {7, -8, 2, 2, 0};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(q.codes[0][static_cast<int64_t>(i)].item<int8_t>(), expected[i]);
  EXPECT_EQ(grids().at("int8_row").quantize(x * 17).scales.scale.item<float>(), 2.0f);
}

// compressed-tensors' own numbers (calculate_qparams, cast_to_fp4): ties to the even number, 5 is one of 6
// and 4.
TEST(Grid, Nvfp4FollowsCompressedTensors) {
  const at::Tensor x = at::zeros({1, 16});
  const std::vector<float> values = {6,    .25,  .75,   1.25,  1.75, 2.5,  3.5, 5,
                                     -.25, -.75, -1.25, -1.75, -2.5, -3.5, -5,  4.9};
  const std::vector<int> expected = {12, 0, 2, 2, 4, 4, 8, 8, 0, -2, -2, -4, -4, -8, -8, 8};
  for (int64_t i = 0; i < 16; ++i) x[0][i] = values[static_cast<size_t>(i)];
  const Quantized q = grids().at("nvfp4").quantize(x);
  EXPECT_EQ(q.scales.scale.item<float>(), 0.5f);  // g = 448, s = 448 / 448
  for (int64_t i = 0; i < 16; ++i)
    EXPECT_EQ(q.codes[0][i].item<int8_t>(), expected[static_cast<size_t>(i)])
        << values[static_cast<size_t>(i)];
}

TEST(Grid, MisfitNamesTensorRuleAndAlternatives) {
  const Grid& q4_0 = grids().at("q4_0");
  EXPECT_EQ(misfit(q4_0, "w", 96), "");
  EXPECT_EQ(misfit(q4_0, "layers.0.ffn.down.weight", 100),
            "layers.0.ffn.down.weight: rows must be a multiple of 32 for q4_0, got 100; grids that fit: fp8");
}

TEST(Grid, UnknownNameListsTheKnown) {
  try {
    grids().at("q3");
    FAIL();
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    for (const std::string& name : grids().names()) EXPECT_NE(text.find(name), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace retort::quantize
