#include <gmock/gmock.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "models/initial_values.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

// The standard deviation of n normal samples is off by a relative 1/sqrt(2n), their mean by std/sqrt(n): 5 of
// each.
void expect_normal(const at::Tensor& x, double std, const std::string& name) {
  const double n = static_cast<double>(x.numel());
  EXPECT_NEAR(x.std().item<double>() / std, 1.0, 5.0 / std::sqrt(2.0 * n)) << name;
  EXPECT_NEAR(x.mean().item<double>() / std, 0.0, 5.0 / std::sqrt(n)) << name;
}

// Whoever has no room for all of them asks for one at a time.
TEST(Initialise, OneAtATimeGivesTheSameBits) {
  for (const std::string& kind : initialiser_names()) {
    Decoder model(testing::tiny_gpt2()), shape(testing::tiny_gpt2(), at::kMeta);
    initialise(model.parameters(), kind, 0.05, 11);
    for (const Parameter& p : shape.parameters().unique())
      EXPECT_TRUE(retort::testing::same_bits(initial_values(shape.parameters(), p, kind, 0.05, 11),
                                             model.parameters().at(p.name).master))
          << kind << " " << p.name;
  }
}

TEST(Initialise, EachKindHasItsDeviation) {
  for (const std::string& kind : initialiser_names())
    for (const double std : {0.05, 0.0}) {
      DecoderSpec spec = testing::tiny_gpt2();
      spec.layers = 6;
      spec.repeat = 2;
      Decoder model(spec);
      initialise(model.parameters(), kind, std, 11);
      const double base = std == 0.0 ? std::sqrt(1.0 / (3.0 * 32)) : std;
      for (const Parameter& p : model.parameters().unique()) {
        const bool joins_residual = p.name.ends_with("attn.o.weight") || p.name.ends_with("ffn.down.weight");
        if (p.role == Role::kNorm) {
          EXPECT_TRUE(at::equal(p.master, at::ones_like(p.master))) << p.name;
        } else if (p.role == Role::kBias) {
          EXPECT_TRUE(at::equal(p.master, at::zeros_like(p.master))) << p.name;
        } else {  // the executed depth counts, not the three stored blocks
          expect_normal(p.master, kind == "gpt2" && joins_residual ? base / std::sqrt(12.0) : base,
                        kind + " " + p.name);
        }
      }
    }
}

TEST(Initialise, DependsOnNameAndSeedOnly) {
  DecoderSpec spec = testing::tiny_llama();
  Decoder a(spec), b(spec), c(spec);
  spec.layers = 3;
  spec.tie_embeddings = true;
  Decoder deeper(spec);
  initialise(a.parameters(), "normal", 0.02, 5);
  initialise(b.parameters(), "normal", 0.02, 5);
  initialise(c.parameters(), "normal", 0.02, 6);
  initialise(deeper.parameters(), "normal", 0.02, 5);
  for (const Parameter& p : a.parameters().unique()) {
    EXPECT_TRUE(testing::same_bits(p.master, b.parameters().at(p.name).master)) << p.name;
    EXPECT_EQ(testing::same_bits(p.master, deeper.parameters().at(p.name).master), p.name != "lm_head.weight")
        << p.name;
    EXPECT_EQ(testing::same_bits(p.master, c.parameters().at(p.name).master), p.role == Role::kNorm)
        << p.name;
  }
  EXPECT_FALSE(at::equal(a.parameters().at("layers.0.ffn.up.weight").master,
                         a.parameters().at("layers.1.ffn.up.weight").master));
}

TEST(Initialise, DoesNotDependOnTheOrderOfDeclaration) {
  Parameters forward, backward;
  forward.add("embed.weight", {4, 3}, Role::kEmbedding);
  forward.add("x.weight", {3, 3}, Role::kMatrix);
  backward.add("x.weight", {3, 3}, Role::kMatrix);
  backward.add("embed.weight", {4, 3}, Role::kEmbedding);
  initialise(forward, "gpt2", 0.02, 1);
  initialise(backward, "gpt2", 0.02, 1);
  for (const Parameter& p : forward.unique())
    EXPECT_TRUE(testing::same_bits(p.master, backward.at(p.name).master)) << p.name;
}

TEST(Initialise, NamesTheKindsItKnows) {
  Decoder model(testing::tiny_llama());
  try {
    initialise(model.parameters(), "gpt", 0.02, 1);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("known: gpt2, normal"));
  }
}

}  // namespace
}  // namespace retort::models
