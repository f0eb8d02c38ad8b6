#include "plan/activations.h"

#include <gtest/gtest.h>

#include "models/adapters.h"
#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

models::DecoderSpec small() {
  return {
      .vocabulary = 64, .layers = 2, .width = 32, .heads = 4, .kv_heads = 2, .head_dim = 8, .ffn_width = 96};
}

}  // namespace

// The formula at the head of activations.h, worked out.
TEST(KeptActivations, OfAGatedDecoder) {
  const double D = 32, Q = 32, G = 16, F = 96, H = 4;
  const double f32 = 2 * (2 * (4 * D + 4) + 4 * (D + 2 * Q + 2 * G) + 4 * H + 4 * (D + 3 * F)) + 4 * D + 4;
  EXPECT_DOUBLE_EQ(bytes_a_token(kept_activations(*shape(small()), {})), f32);
  const double bf16 = 2 * (2 * (4 * D + 4) + 2 * (D + 2 * Q + 2 * G) + 4 * H + 2 * (D + 3 * F)) + 4 * D + 4;
  EXPECT_DOUBLE_EQ(bytes_a_token(kept_activations(*shape(small()), {.bf16 = true})), bf16);
  EXPECT_DOUBLE_EQ(bytes_a_token(kept_activations(*shape(small()), {.documents = true})), f32 + 2 * 4);
}

// A layer that runs again keeps its own activations, whoever owns its weights.
TEST(KeptActivations, SharingSavesNone) {
  models::DecoderSpec shared = small();
  shared.share_ffn = true;
  shared.repeat = 2;
  EXPECT_DOUBLE_EQ(bytes_a_token(kept_activations(*shape(shared), {})),
                   bytes_a_token(kept_activations(*shape(small()), {})));
}

TEST(KeptActivations, WhatAFrozenWeightMultipliesIsKeptForAdaptersOnly) {
  const auto adapted = [](const std::string& modules, bool bf16) {
    models::AdapterOptions options;
    options.modules = {modules};
    options.rank = 2;
    return bytes_a_token(kept_activations(*models::adapt(shape(small()), options, 0), {.bf16 = bf16}));
  };
  const double D = 32, Q = 32, F = 96, whole = bytes_a_token(kept_activations(*shape(small()), {}));
  EXPECT_DOUBLE_EQ(adapted("q_proj", false),
                   whole - 2 * 4 * (D + F) + 2 * 4 * 2);  // not ffn's input and not down's
  EXPECT_DOUBLE_EQ(adapted("all-linear", false), whole + 7 * 2 * 4 * 2);
  const double bf16 = bytes_a_token(kept_activations(*shape(small()), {.bf16 = true}));
  EXPECT_DOUBLE_EQ(adapted("o_proj", true), bf16 - 2 * 2 * (D + D + F) + 2 * (4 * Q + 4 * 2));
}

TEST(KeptActivations, EveryFamilyKeepsSome) {
  for (const models::Family& family : models::families())
    EXPECT_GT(bytes_a_token(kept_activations(*shape(family.defaults), {})), 0) << family.name;
}

}  // namespace retort::plan
