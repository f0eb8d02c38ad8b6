#include "plan/flops.h"

#include <gtest/gtest.h>

#include "plan/device.h"
#include "plan/parameter_count.h"
#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

constexpr double kWithin = 0.001;  // of published figures

struct FoundryRow {
  int64_t layers, width, heads, tokens;
  double tokens_a_second_a_gpu, mfu;  // %
};

// llm-foundry counts every parameter (MPT's positions too), and attention's full square.
void expect_row(const FoundryRow& row) {
  const auto model = shape(gpt(row.layers, row.width, row.heads, 50368, row.tokens));
  const double N = static_cast<double>(count_parameters(model->parameters()).stored);
  const Flops flops = flops_a_token(N, static_cast<double>(row.layers * row.width * row.tokens));
  const double share = flops.total() * row.tokens_a_second_a_gpu / devices().at("h100").bf16;
  EXPECT_NEAR(100 * share, row.mfu, kWithin * row.mfu);
}

// Megatron Bridge and NeMo leave the input embedding out, and halve attention.
double nemo_flops(const models::DecoderSpec& spec, double tokens) {
  const auto model = shape(spec);
  const double look_up = static_cast<double>(spec.vocabulary * spec.width);
  const double N = static_cast<double>(count_parameters(model->parameters()).stored) - look_up;
  return flops_a_token(N, static_cast<double>(spec.layers * spec.width) * tokens / 2).total();
}

}  // namespace

// The published throughputs are whole tokens of the cluster, here divided by its GPUs.
TEST(FlopsLlmFoundry, Mpt7bOn8) { expect_row({32, 4096, 32, 2048, 85144.0 / 8, 46.44}); }
TEST(FlopsLlmFoundry, Mpt13bOn8Of32k) { expect_row({40, 5120, 40, 32768, 15812.0 / 8, 31.68}); }
TEST(FlopsLlmFoundry, Mpt30bOn8Of8k) { expect_row({48, 7168, 64, 8192, 11072.0 / 8, 29.92}); }
TEST(FlopsLlmFoundry, Mpt70bOn64) { expect_row({80, 8192, 64, 2048, 66523.0 / 64, 42.57}); }
TEST(FlopsLlmFoundry, Mpt70bOn512) { expect_row({80, 8192, 64, 2048, 1007, 41.25}); }

TEST(FlopsMegatronBridge, Llama3Of8bOn8) {
  EXPECT_NEAR(nemo_flops(llama3_8b(), 8192) * 14451 / 1e12, 743.8, 0.74);
}
TEST(FlopsMegatronBridge, Llama3Of70bOn64) {
  EXPECT_NEAR(nemo_flops(llama3_70b(), 8192) * 1602 / 1e12, 719.7, 0.72);
}
TEST(FlopsMegatronBridge, Llama3Of405bOn1024) {
  EXPECT_NEAR(nemo_flops(llama3_405b(), 8192) * 292 / 1e12, 737.0, 0.74);
}
TEST(FlopsNemoAutomodel, Llama3Of70bOn64) {
  EXPECT_NEAR(nemo_flops(llama3_70b(), 8192) * 866.77 / 1e12, 389.4, 0.39);
}

// What plans print: every matrix as often as it runs, the head once, the look-up never.
TEST(Flops, CountWhatATokenMultiplies) {
  const models::DecoderSpec spec{.vocabulary = 100,
                                 .layers = 3,
                                 .width = 32,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .head_dim = 16,
                                 .ffn_width = 64,
                                 .share_ffn = true};
  const Flops flops = flops_a_token(*shape(spec), 50);
  const double layer = 32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64;
  EXPECT_DOUBLE_EQ(flops.products, 6 * (3 * layer + 100 * 32));
  EXPECT_DOUBLE_EQ(flops.attention, 12.0 * 3 * 2 * 16 * 50);
  EXPECT_DOUBLE_EQ(flops.total(), shape(spec)->flops_per_token(50));
}

TEST(Flops, ATeacherOnlyRunsForwardAndInItsOwnContext) {
  models::DecoderSpec spec{.context = 64};
  EXPECT_DOUBLE_EQ(forward_flops_a_token(*shape(spec), 64), flops_a_token(*shape(spec), 64).total() / 3);
  EXPECT_DOUBLE_EQ(forward_flops_a_token(*shape(spec), 6400), forward_flops_a_token(*shape(spec), 64));
}

}  // namespace retort::plan
