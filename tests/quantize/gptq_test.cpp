#include "quantize/gptq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

at::Tensor normal(at::IntArrayRef shape, const char* name) {
  at::Tensor out = at::empty(shape);
  Random(3, name).fill_normal(out, 1.0);
  return out;
}

// H of inputs that share a few directions, as hidden states do.
at::Tensor correlated(int64_t width) {
  const at::Tensor x =
      at::matmul(normal({4096, width / 8}, "few"), normal({width / 8, width}, "directions")) +
      0.1 * normal({4096, width}, "own");
  return at::matmul(x.t(), x).to(at::kDouble);
}

const std::vector<std::string> kGrids = {"q4_0",     "q4_1",      "q8_0",     "q4_k",     "q6_k", "mxfp4",
                                         "int4_g32", "int4_g128", "int4_row", "int8_row", "fp8"};

}  // namespace

TEST(Gptq, WithoutCorrelationItIsRoundToNearestBitForBit) {
  const at::Tensor w_OI = normal({24, 512}, "weights");
  for (const std::string& name : kGrids) {
    const Grid& grid = grids().at(name);
    const Quantized rtn = grid.quantize(w_OI);
    for (const bool act_order : {false, true}) {
      const Quantized ours = gptq("w", w_OI, 5.0 * at::eye(512, at::kDouble), grid, {.act_order = act_order});
      EXPECT_TRUE(at::equal(ours.codes.view(at::kByte), rtn.codes.view(at::kByte)))
          << name << " " << act_order;
      EXPECT_TRUE(testing::same_bits(dequantize_blocks(ours), dequantize_blocks(rtn))) << name;
      if (grid.ggml) {
        EXPECT_EQ(grid.pack(ours).bytes, grid.pack(rtn).bytes) << name;
      }
    }
  }
}

TEST(Gptq, FallsFarBelowRoundToNearestOnCorrelatedInputs) {
  const at::Tensor w_OI = normal({48, 256}, "weights"), h_II = correlated(256);
  for (const std::string& name : kGrids) {
    const Grid& grid = grids().at(name);
    const double rtn = output_error(w_OI, dequantize_blocks(grid.quantize(w_OI)), h_II);
    for (const bool act_order : {false, true}) {
      const Quantized q = gptq("w", w_OI, h_II, grid, {.act_order = act_order});
      const double ours = output_error(w_OI, dequantize_blocks(q), h_II);
      EXPECT_LT(ours, 0.5 * rtn) << name << " " << act_order;
      EXPECT_GT(ours, 0.0);
      const Quantized again = gptq("w", w_OI, h_II, grid, {.act_order = act_order});
      EXPECT_TRUE(testing::same_bits(dequantize_blocks(q), dequantize_blocks(again))) << name;
      if (grid.ggml) {
        EXPECT_TRUE(testing::same_bits(formats::unpack(grid.pack(q)), dequantize_blocks(q))) << name;
      }
    }
  }
}

TEST(Gptq, AnInputThatIsAlwaysZeroGetsNoWeight) {
  const at::Tensor w_OI = normal({6, 32}, "weights");
  at::Tensor h_II = correlated(32);
  h_II.select(0, 5).zero_();
  h_II.select(1, 5).zero_();
  const at::Tensor q_OI = dequantize_blocks(gptq("w", w_OI, h_II, grids().at("q4_0"), {}));
  EXPECT_EQ(q_OI.select(1, 5).abs().max().item<double>(), 0.0);
  EXPECT_GT(q_OI.select(1, 6).abs().max().item<double>(), 0.0);
}

TEST(Gptq, RefusesWhatIsNoNumber) {
  const at::Tensor w_OI = normal({6, 32}, "weights"), h_II = correlated(32);
  const Grid& grid = grids().at("q4_0");
  at::Tensor bad_w = w_OI.clone(), bad_h = h_II.clone();
  bad_w[2][3] = std::nan("");
  bad_h[2][3] = INFINITY;
  EXPECT_THROW(gptq("w", bad_w, h_II, grid, {}), NonFiniteError);
  EXPECT_THROW(gptq("w", w_OI, bad_h, grid, {}), NonFiniteError);
  EXPECT_THROW(gptq("w", w_OI, correlated(64), grid, {}), ShapeError);
}

}  // namespace retort::quantize
