// A base that is kept as codes computes what the same values do when they are kept as they are.
#include "models/frozen_codes.h"

#include "core/error.h"
#include "models/adapters.h"
#include "models/moved_codes.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::relative_error;
using testing::same_bits;

DecoderSpec small() {
  DecoderSpec spec = testing::tiny_llama();
  spec.ffn_width = 64;
  return spec;
}

std::unique_ptr<Model> adapted(std::unique_ptr<Model> base, const std::string& form, bool dora) {
  AdapterOptions options;
  options.rank = 3;
  options.dora = dora;
  options.base = form;
  auto model = adapt(std::move(base), options, 5);
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique())
    if (p.role == Role::kLoraB) p.master.fill_(0.05);
  return model;
}

// The masters of a model as the form keeps them.
std::unique_ptr<Model> rounded(const DecoderSpec& spec, const std::string& form) {
  const auto codes = adapted(testing::random_model(spec), form, false);
  auto out = testing::random_model(spec);
  const at::NoGradGuard no_grad;
  for (Parameter& p : out->parameters().unique()) p.master.copy_(codes->parameters().at(p.name).values());
  return out;
}

std::vector<std::string> smaller_forms() {
  std::vector<std::string> out = frozen_code_names();
  std::erase(out, "f32");
  return out;
}

// Codes that are where they are wanted stay the same ones, and their values are cast once.
TEST(FrozenCodes, MoveOnlyWhereTheyAreNot) {
  for (const std::string& form : smaller_forms()) {
    const auto model = adapted(testing::random_model(small()), form, false);
    for (const Parameter& p : model->parameters().unique()) {
      if (!p.codes) continue;
      EXPECT_EQ(moved_codes(p.codes, at::kCPU), p.codes) << form << " " << p.name;
      EXPECT_TRUE(same_bits(values_on(*p.codes, at::kCPU, at::kBFloat16), p.values().to(at::kBFloat16)))
          << form << " " << p.name;
    }
  }
}

TEST(FrozenCodes, ComputeWhatTheirValuesDo) {
  for (const std::string& form : smaller_forms())
    for (const bool dora : {false, true})
      for (const DecoderSpec& spec : testing::tiny_families()) {
        const auto codes = adapted(testing::random_model(spec), form, dora);
        const auto plain = adapted(rounded(spec, form), "f32", dora);
        const at::Tensor tokens = testing::random_tokens(2, 9, 96);
        const at::Tensor a = testing::next_token_loss(*codes, tokens),
                         b = testing::next_token_loss(*plain, tokens);
        EXPECT_LT(relative_error(a, b), 1e-6) << form << " " << spec.family;
        a.backward();
        b.backward();
        for (const Parameter& p : codes->parameters().unique()) {
          if (p.borrowed) continue;
          EXPECT_LT(relative_error(p.working.grad(), plain->parameters().at(p.name).working.grad()), 1e-4)
              << form << " " << spec.family << " " << p.name;
        }
      }
}

TEST(FrozenCodes, TakeLessAndHoldNothingElse) {
  const std::map<std::string, int64_t> bits = {{"bf16", 16}, {"q8_0", 9}, {"q4_0", 5}, {"nf4", 5}};
  for (const std::string& form : smaller_forms()) {
    const auto model = adapted(testing::random_model(small()), form, false);
    int64_t kept = 0;
    for (const Parameter& p : model->parameters().unique()) {
      EXPECT_EQ(p.codes != nullptr, p.borrowed && p.role == Role::kMatrix) << p.name;
      if (!p.codes) continue;
      ++kept;
      EXPECT_EQ(p.master.numel() + p.working.numel(), 0) << p.name;
      EXPECT_LE(static_cast<int64_t>(p.codes->bytes()), p.numel() * bits.at(form) / 8)
          << form << " " << p.name;
      EXPECT_EQ(p.values().sizes(), p.shape);
    }
    EXPECT_EQ(kept, 2 * 7);
  }
}

TEST(FrozenCodes, AreMultipliedInTheRunsPrecision) {
  const auto model = adapted(testing::random_model(small()), "nf4", false);
  const at::Tensor tokens = testing::random_tokens(2, 9, 96);
  const double exact = testing::next_token_loss(*model, tokens).item<double>();
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kBFloat16);
  EXPECT_EQ(model->parameters().at("layers.0.attn.q.weight").working.scalar_type(), at::kBFloat16);
  const at::Tensor loss = testing::next_token_loss(*model, tokens);
  EXPECT_NE(loss.item<double>(), exact);
  EXPECT_NEAR(loss.item<double>(), exact, 0.02 * exact);
  EXPECT_NO_THROW(loss.backward());
}

TEST(FrozenCodes, MergeIntoTheirValues) {
  const auto model = adapted(testing::random_model(small()), "nf4", true);
  IdentityMap identity;
  const auto merged = merge_adapters(*model, identity);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = testing::random_tokens(2, 9, 96);
  EXPECT_LT(relative_error(testing::logits(*merged, {tokens}), testing::logits(*model, {tokens})), 1e-5);
}

TEST(FrozenCodes, AreSharedByACopy) {
  const auto model = adapted(testing::random_model(small()), "q4_0", false);
  const auto copy = same_shape(*model);
  EXPECT_EQ(copy->parameters().at("layers.1.ffn.up.weight").codes,
            model->parameters().at("layers.1.ffn.up.weight").codes);
}

TEST(FrozenCodes, WantRowsOfWholeBlocks) {
  DecoderSpec spec = testing::tiny_llama();
  spec.ffn_width = 40;
  try {
    adapted(testing::random_model(spec), "q4_0", false);
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "adapters.base q4_0 wants rows that are a multiple of 32, and layers.0.ffn.down.weight has "
                 "rows of 40");
  }
  EXPECT_NO_THROW(adapted(testing::random_model(spec), "nf4", false));
}

}  // namespace
}  // namespace retort::models
