#include "quantize/recover.h"

#include <gmock/gmock.h>

#include <cmath>

#include "core/random.h"
#include "models/decoder.h"
#include "quantize/post_training.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using ::testing::HasSubstr;
using testing::same_bits;

at::Tensor gaussian(std::vector<int64_t> shape, double std, uint64_t seed) {
  at::Tensor out = at::empty(shape);
  Random(seed, "test/weights").fill_normal(out, std);
  return out;
}

// What a checkpoint of the type gives back of f32 values.
at::Tensor through(at::ScalarType type, const at::Tensor& values) { return values.to(type).to(at::kFloat); }

constexpr at::ScalarType kTypes[] = {at::kBFloat16, at::kHalf, at::kFloat};

std::vector<const Grid*> recoverable() {
  std::vector<const Grid*> out;
  for (const Grid& grid : grids())
    if (recovery_misfit(grid).empty()) out.push_back(&grid);
  return out;
}

// One row of a grid with a scale a block, from its codes.
Quantized block_of(std::vector<int8_t> codes, float scale) {
  codes.resize(32);
  return {at::tensor(codes, at::kChar).view({1, 32}), {at::tensor({scale}).view({1, 1}), {}, {}, {}}};
}

}  // namespace

// Every code, whatever the type, the scale and the shape; of f32 every scale and so every byte of the file too.
TEST(Recover, FindsEveryCodeOfWhatWasOnTheGrid) {
  for (const Grid* grid : recoverable())
    for (const double std : {3e-4, 0.02, 1.0, 90.0})
      for (const std::vector<int64_t>& shape : {std::vector<int64_t>{8, 256}, {3, 768}, {64, 512}})
        for (const at::ScalarType type : kTypes) {
          const Quantized made = grid->quantize(gaussian(shape, std, 3));
          const at::Tensor w = through(type, dequantize_blocks(made));
          const Recovered found = recover(w, *grid);
          const std::string what =
              fmt::format("{} std {} row {} {}", grid->name, std, shape[1], toString(type));
          EXPECT_TRUE(found.whole()) << what;
          EXPECT_TRUE(found.quantized.codes.equal(made.codes)) << what;
          EXPECT_TRUE(through(type, dequantize_blocks(found.quantized)).equal(w)) << what;
          if (type != at::kFloat) continue;
          EXPECT_TRUE(same_bits(found.quantized.scales.scale, made.scales.scale)) << what;
          EXPECT_EQ(grid->pack(found.quantized).bytes, grid->pack(made).bytes) << what;
        }
}

// What docs/quantization.md says of scales after bf16 and f16.
TEST(Recover, FindsScalesThatWereRoundedWhereManyCodesTellThem) {
  const auto equal_scales = [](const std::string& name, at::ScalarType type) {
    const Grid& grid = grids().at(name);
    const Quantized made = grid.quantize(gaussian({256, 1024}, 0.02, 7));
    const Recovered found = recover(through(type, dequantize_blocks(made)), grid);
    return found.quantized.scales.scale.eq(made.scales.scale).to(at::kDouble).mean().item<double>();
  };
  EXPECT_EQ(equal_scales("q4_0", at::kHalf), 1.0);
  EXPECT_EQ(equal_scales("ternary", at::kHalf), 1.0);
  EXPECT_GT(equal_scales("q8_0", at::kHalf), 0.99);
  EXPECT_GT(equal_scales("q8_0", at::kBFloat16), 0.9);
  EXPECT_GT(equal_scales("q4_0", at::kBFloat16), 0.38);
  const Quantized ternary = grids().at("ternary").quantize(gaussian({8, 256}, 0.0203, 7));
  const at::Tensor w = through(at::kBFloat16, dequantize_blocks(ternary));
  const Recovered found = recover(w, grids().at("ternary"));
  EXPECT_TRUE(dequantize_blocks(found.quantized).equal(w));  // without rounding
  EXPECT_TRUE(found.quantized.scales.scale.equal(through(at::kBFloat16, ternary.scales.scale)));
}

// A block of two values tells the least. All fractions that an f16 scale may have, all pairs of codes.
TEST(Recover, NoScaleAndNoCodeOfQ4_0IsAmbiguousInBfloat) {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  for (int fraction = 0; fraction < 1024; ++fraction)
    for (int code = -7; code <= 7; ++code) {
      std::vector<int8_t> block(32);
      block[5] = -8, block[9] = static_cast<int8_t>(code);
      codes.insert(codes.end(), block.begin(), block.end());
      scales.push_back((fraction % 2 == 0 ? 0x1p-9f : -0x1p-9f) * (1 + static_cast<float>(fraction) / 1024));
    }
  const auto rows = static_cast<int64_t>(scales.size());
  const Quantized made{at::tensor(codes, at::kChar).view({rows, 32}),
                       {at::tensor(scales).view({rows, 1}), {}, {}, {}}};
  for (const at::ScalarType type : kTypes) {
    const at::Tensor w = through(type, dequantize_blocks(made));
    const Recovered found = recover(w, grids().at("q4_0"));
    EXPECT_TRUE(found.whole());
    EXPECT_TRUE(found.quantized.codes.equal(made.codes)) << toString(type);
    EXPECT_TRUE(through(type, dequantize_blocks(found.quantized)).equal(w)) << toString(type);
  }
}

// Two magnitudes near the top do not tell 8-bit codes in bf16 from their neighbours; the values are right all the same.
TEST(Recover, GivesBackTheValuesOfTwoMagnitudesInQ8_0) {
  int64_t other_codes = 0, blocks = 0;
  for (int fraction = 0; fraction < 1024; fraction += 7)
    for (int code = 1; code <= 126; ++code, ++blocks) {
      const Quantized made =
          block_of({127, static_cast<int8_t>(-code)}, 0x1p-9f * (1 + static_cast<float>(fraction) / 1024));
      const at::Tensor w = through(at::kBFloat16, dequantize_blocks(made));
      const Recovered found = recover(w, grids().at("q8_0"));
      EXPECT_TRUE(found.whole());
      EXPECT_TRUE(through(at::kBFloat16, dequantize_blocks(found.quantized)).equal(w));
      if (found.quantized.codes.equal(made.codes)) continue;
      ++other_codes;
      EXPECT_GT(code, 74);
      EXPECT_EQ((found.quantized.codes - made.codes).abs().max().item<int>(), 1);
    }
  EXPECT_GT(other_codes, 0);
  EXPECT_LT(static_cast<double>(other_codes), 0.04 * static_cast<double>(blocks));
}

// What values leave open is taken from ggml's formula, which gives the value of largest magnitude the code -8; where
// that does not fit, it is the smallest code. The values are the same bits.
TEST(Recover, ChoosesAmongCodesOfEqualValues) {
  const Grid& grid = grids().at("q4_0");
  struct Case {
    std::vector<int8_t> codes;
    int8_t expected_first;
  };
  for (const at::ScalarType type : kTypes)
    for (const float scale : {0.01001f, -0.01001f}) {
      const float held = as_f16(at::tensor({scale})).item<float>();
      for (const Case& c : {Case{{-8}, -8}, Case{{5}, -8},                // one value: ggml's formula
                            Case{{-8, 4, -2, 6}, -8}, Case{{-6, 3}, -8},  // a common factor that it has
                            Case{{6, 4, -2}, 3}}) {                       // one that it has not
        const Quantized made = block_of(c.codes, held);
        const at::Tensor w = through(type, dequantize_blocks(made));
        const Recovered found = recover(w, grid);
        EXPECT_TRUE(found.whole());
        EXPECT_EQ(std::abs(found.quantized.codes[0][0].item<int>()), std::abs(c.expected_first));
        EXPECT_TRUE(through(type, dequantize_blocks(found.quantized)).equal(w));
      }
    }
  const at::Tensor zeros = at::zeros({2, 64});
  const Recovered none = recover(zeros, grid);
  EXPECT_TRUE(none.whole());
  EXPECT_EQ(grid.pack(none.quantized).bytes, formats::pack(formats::GgmlType::Q4_0, zeros).bytes);
}

// A file of other software need not give any value the code of ggml's formula.
TEST(Recover, FindsBlocksWhoseLargestCodeIsSmall) {
  at::Tensor codes = gaussian({64, 32}, 3, 5).round().clamp(-5, 5).to(at::kChar);
  codes.select(1, 0).fill_(5);
  const at::Tensor scale = as_f16(gaussian({64, 1}, 0.01, 6).abs() + 1e-3);
  for (const char* name : {"q4_0", "q8_0", "int4_g32"})
    for (const at::ScalarType type : kTypes) {
      const at::Tensor w = through(type, dequantize_blocks({codes, {scale, {}, {}, {}}}));
      const Recovered found = recover(w, grids().at(name));
      EXPECT_TRUE(found.whole()) << name;
      EXPECT_TRUE(found.quantized.codes.equal(codes)) << name << toString(type);
    }
}

// Scales and offsets of Q4_1: ggml's own bytes from its values, blocks of few values, and one whose least value has no
// f16 number.
TEST(Recover, FindsOffsets) {
  const Grid& grid = grids().at("q4_1");
  const at::Tensor x = gaussian({64, 512}, 0.02, 12) + 0.01;
  const formats::PackedTensor file = formats::pack(formats::GgmlType::Q4_1, x);  // by ggml's rule
  const Recovered exact = recover(formats::unpack(file), grid);
  EXPECT_TRUE(exact.whole());
  EXPECT_EQ(grid.pack(exact.quantized).bytes, file.bytes);
  for (const at::ScalarType type : kTypes) {
    const at::Tensor w = through(type, formats::unpack(file));
    const Recovered found = recover(w, grid);
    EXPECT_TRUE(found.whole());
    EXPECT_TRUE(found.quantized.codes.equal(exact.quantized.codes)) << toString(type);
    EXPECT_TRUE(through(type, dequantize_blocks(found.quantized)).equal(w));
    EXPECT_TRUE(same_bits(formats::unpack(grid.pack(found.quantized)), dequantize_blocks(found.quantized)));
  }
  at::Tensor few = at::full({4, 32}, 0.0f);  // zeros; one value; two values; a constant
  few[1][3] = 0.5, few[2].slice(0, 0, 9).fill_(-0.25), few[3].fill_(1.5);
  const Recovered found = recover(few, grid);
  EXPECT_TRUE(found.whole());
  EXPECT_TRUE(through(at::kBFloat16, dequantize_blocks(found.quantized)).equal(few));
  few[1][4] = -0.1;
  EXPECT_EQ(recover(few, grid).found.sum().item<int64_t>(), 3);
}

TEST(Recover, SaysWhatIsNotOnTheGrid) {
  for (const char* name : {"q4_0", "q4_1", "q8_0", "ternary_row", "lsq4"}) {
    const Grid& grid = grids().at(name);
    const at::Tensor x = through(at::kBFloat16, gaussian({16, 256}, 0.02, 9));
    const Recovered random = recover(x, grid);
    EXPECT_EQ(random.share(), 0.0) << name;
    EXPECT_TRUE(same_bits(dequantize_blocks(random.quantized), dequantize_blocks(grid.quantize(x)))) << name;

    at::Tensor w = dequantize_blocks(grid.quantize(x));
    w[3][40] += 0.3 * w[3].abs().max();
    const Recovered one = recover(w, grid);
    EXPECT_EQ(one.found.logical_not().sum().item<int64_t>(), 1) << name;
    EXPECT_FALSE(one.found[3][one.found.size(1) == 8 ? 1 : 0].item<bool>()) << name;
  }
  at::Tensor w = dequantize_blocks(grids().at("ternary").quantize(gaussian({16, 256}, 0.02, 9)));
  w[0].mul_(2);  // rows of two scales: on the grid of rows, not on the tensor's
  EXPECT_EQ(recover(w, grids().at("ternary")).share(), 0.0);
  EXPECT_TRUE(recover(w, grids().at("ternary_row")).whole());
}

TEST(Recover, RefusesGridsWhoseScalesHaveParts) {
  for (const Grid& grid : grids()) {
    const bool parts =
        grid.name == "q4_k" || grid.name == "q6_k" || grid.name == "nvfp4" || grid.name == "fp8";
    EXPECT_EQ(recovery_misfit(grid).empty(), !parts) << grid.name;
    EXPECT_EQ(method_misfit({.recover = true}, grid, true).empty(), !parts) << grid.name;
  }
  EXPECT_THAT(recovery_misfit(grids().at("q4_k")), HasSubstr("codes can be recovered on q8_0, q4_0"));
  EXPECT_NE(method_misfit({.method = "gptq", .recover = true}, grids().at("q4_0"), true), "");
  EXPECT_NE(method_misfit({.clip_search = true, .recover = true}, grids().at("q4_0"), true), "");
}

// A whole model that was trained on grids, written in bf16 and read again: the bytes of f32, the codes of bf16.
TEST(Recover, KeepsTheCodesOfAModel) {
  const models::DecoderSpec spec{.vocabulary = 64,
                                 .context = 32,
                                 .layers = 2,
                                 .width = 256,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 64,
                                 .ffn_width = 512};
  Log quiet(stderr, "", true);
  for (const char* name : {"q4_0", "ternary", "q8_0"})
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
      models::Decoder trained(spec), read(spec);
      models::initialise(trained.parameters(), "normal", 0.15, 4);
      QuantizeOptions options;
      options.weights.grid = name;
      QuantizeMap map(options, trained.parameters());
      map.enable(true);
      for (models::Parameter& p : read.parameters().unique())
        p.master.copy_(through(
            type, map.apply(trained.parameters().at(p.name), trained.parameters().at(p.name).master)));
      const models::Parameter& touched = read.parameters().at("layers.1.ffn.up.weight");
      touched.master[0].copy_(through(type, gaussian({256}, 0.15, 8)));
      const auto codes =
          post_train(read, QuantizeMap(options, read.parameters()), {.recover = true}, {}, quiet);
      for (const models::Parameter& p : read.parameters().unique()) {
        if (codes->grid_of(p) == nullptr) continue;
        const Quantized made = map.quantize(trained.parameters().at(p.name)), found = codes->quantize(p);
        const bool whole = p.name != touched.name;
        EXPECT_EQ(*codes->on_grid(p.name) == 1, whole) << name << p.name;
        const int64_t from = whole ? 0 : 1;
        if (whole || std::string(name) != "ternary") {  // whose scale is the tensor's
          EXPECT_TRUE(found.codes.slice(0, from).equal(made.codes.slice(0, from))) << name << p.name;
        }
        if (whole && type == at::kFloat) {
          EXPECT_EQ(codes->pack(p).bytes, map.pack(trained.parameters().at(p.name)).bytes);
        }
      }
    }
}

}  // namespace retort::quantize
