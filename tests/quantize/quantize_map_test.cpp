#include "quantize/quantize_map.h"

#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using models::Parameter;
using models::Parameters;
using models::Role;
using testing::same_bits;

// One parameter of each role, and a tied head when `tied`.
struct SampleParameters : Parameters {
  explicit SampleParameters(bool tied = false) {
    add("embed.weight", {40, 64}, Role::kEmbedding);
    add("positions.weight", {16, 50}, Role::kPositions);
    add("layers.0.ffn.up.weight", {48, 96}, Role::kMatrix);
    add("layers.0.ffn.up.bias", {48}, Role::kBias);
    add("norm.weight", {50}, Role::kNorm);
    if (tied)
      alias("lm_head.weight", "embed.weight");
    else
      add("lm_head.weight", {40, 32}, Role::kHead);
    for (Parameter& p : unique()) Random(3, p.name).fill_normal(p.master, 0.05);
  }
};

QuantizeOptions all(const std::string& grid, int64_t from_step = 0) {
  return {.weights = {grid}, .embedding = {grid}, .head = {grid}, .from_step = from_step};
}

TEST(QuantizeMap, EachRoleTakesItsGrid) {
  const SampleParameters parameters;
  const QuantizeMap map({.weights = {"q4_0"}, .embedding = {"q8_0"}, .head = {"none"}}, parameters);
  const auto name_of = [&](const char* name) {
    const Grid* grid = map.grid_of(parameters.at(name));
    return grid == nullptr ? std::string("f32") : grid->name;
  };
  EXPECT_EQ(name_of("layers.0.ffn.up.weight"), "q4_0");
  EXPECT_EQ(name_of("embed.weight"), "q8_0");
  EXPECT_EQ(name_of("lm_head.weight"), "f32");
  for (const char* name : {"positions.weight", "layers.0.ffn.up.bias", "norm.weight"}) {
    EXPECT_EQ(name_of(name), "f32") << name;
    EXPECT_TRUE(map.identity_for(parameters.at(name))) << name;
  }
}

TEST(QuantizeMap, TiedHeadIsTheEmbedding) {
  const SampleParameters parameters(/*tied=*/true);
  const QuantizeMap map({.weights = {"q4_0"}, .embedding = {"q8_0"}, .head = {"q4_0"}}, parameters);
  EXPECT_EQ(map.grid_of(parameters.at("lm_head.weight"))->name, "q8_0");
}

TEST(QuantizeMap, PackedEqualsAppliedBitForBit) {
  for (const Grid& grid : grids()) {
    if (grid.block > 32 || !grid.ggml) continue;  // rows of 32
    SampleParameters parameters;
    QuantizeMap map(all(grid.name), parameters);
    for (const Parameter& p : parameters.unique()) {
      const at::Tensor applied = map.apply(p, p.master);
      EXPECT_TRUE(same_bits(formats::unpack(map.pack(p)), applied)) << grid.name << " " << p.name;
      EXPECT_EQ(map.identity_for(p), applied.is_same(p.master)) << p.name;
    }
  }
}

// Off, an export holds what is evaluated then: the masters.
TEST(QuantizeMap, DisabledIsTheIdentityInBothDirections) {
  SampleParameters parameters;
  QuantizeMap map(all("q4_0"), parameters);
  map.enable(false);
  for (const Parameter& p : parameters.unique()) {
    EXPECT_TRUE(map.apply(p, p.master).is_same(p.master));
    EXPECT_TRUE(same_bits(formats::unpack(map.pack(p)), p.master));
  }
  EXPECT_FALSE(map.identity_for(parameters.at("embed.weight"))) << "its working copy needs its own storage";
}

TEST(QuantizeMap, BeginStepSwitchesOnce) {
  const SampleParameters parameters;
  QuantizeMap map(all("q4_0", 3), parameters);
  std::string changes;
  for (int64_t step = 0; step < 6; ++step)
    changes += map.begin_step(step) ? '!' : (map.enabled() ? '1' : '0');
  EXPECT_EQ(changes, "000!11");
  EXPECT_TRUE(QuantizeMap(all("q4_0", 0), parameters).enabled());
}

TEST(QuantizeMap, AllMisfitsAreNamedAtOnce) {
  Parameters parameters;
  parameters.add("embed.weight", {40, 64}, Role::kEmbedding);
  parameters.add("a.weight", {8, 100}, Role::kMatrix);
  parameters.add("norm.weight", {50}, Role::kNorm);
  parameters.add("b.weight", {8, 48}, Role::kMatrix);
  try {
    QuantizeMap map(all("q4_0"), parameters);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(
        error.what(),
        "[quantize] these tensors do not fit their grids; name one that fits, or none, as the fallback "
        "(quantize.fallback, --fallback):\n"
        "  a.weight: rows must be a multiple of 32 for q4_0, got 100; grids that fit: fp8\n"
        "  b.weight: rows must be a multiple of 32 for q4_0, got 48; grids that fit: fp8");
  }
}

TEST(QuantizeMap, AFallbackTakesTheTensorsThatDoNotFit) {
  Parameters parameters;
  parameters.add("a.weight", {8, 100}, Role::kMatrix);
  parameters.add("b.weight", {8, 64}, Role::kMatrix);
  QuantizeOptions options = all("q4_0");
  options.fallback = "fp8";
  const QuantizeMap map(options, parameters);
  EXPECT_EQ(map.grid_of(parameters.at("a.weight"))->name, "fp8");
  EXPECT_EQ(map.grid_of(parameters.at("b.weight"))->name, "q4_0");
  options.fallback = "none";
  EXPECT_EQ(QuantizeMap(options, parameters).grid_of(parameters.at("a.weight")), nullptr);
  options.fallback = "q8_0";  // does not fit either
  EXPECT_THROW(QuantizeMap(options, parameters), ConfigError);
}

TEST(QuantizeMap, UnknownGridIsRefused) {
  EXPECT_THROW(QuantizeMap(all("q3"), SampleParameters()), ConfigError);
}

// The forward pass sees the grid's values, and their gradient becomes the master's, unchanged.
TEST(QuantizeMap, GradientGoesStraightThrough) {
  SampleParameters parameters;
  QuantizeMap map(all("q4_0"), parameters);
  models::bind_working(parameters, map, at::kFloat);
  Parameter& p = parameters.at("layers.0.ffn.up.weight");
  EXPECT_TRUE(same_bits(p.working, map.apply(p, p.master)));
  EXPECT_FALSE(same_bits(p.working, p.master));
  p.working.square().sum().backward();
  EXPECT_TRUE(same_bits(map.pull_back(p, p.working.grad()), 2 * p.working.detach()));  // not 2 * master
}

TEST(QuantizeMap, MidRunSwitchRebuildsWorkingInPlace) {
  SampleParameters parameters(/*tied=*/true);
  QuantizeMap map(all("q4_0", 5), parameters);
  models::bind_working(parameters, map, at::kFloat);
  Parameter& p = parameters.at("layers.0.ffn.up.weight");
  const at::Tensor before = p.working;
  EXPECT_TRUE(same_bits(p.working, p.master));
  EXPECT_FALSE(p.working.is_alias_of(p.master)) << "or the switch would overwrite the master";

  const at::Tensor master = p.master.clone();
  ASSERT_TRUE(map.begin_step(5));
  models::refresh_working(parameters, map);
  EXPECT_TRUE(p.working.is_same(before)) << "hooks stay on it";
  EXPECT_TRUE(same_bits(p.master, master));
  EXPECT_TRUE(same_bits(p.working, map.apply(p, p.master)));

  // A resume or an evaluation of the unquantized weights goes back the same way.
  map.enable(false);
  models::refresh_working(parameters, map);
  EXPECT_TRUE(same_bits(p.working, p.master));
}

// What straight-through training is for: updates add up in the masters, the values follow on the grid.
TEST(QuantizeMap, ValuesReachATargetThroughTheMasters) {
  SampleParameters parameters;
  QuantizeMap map(all("q4_0"), parameters);
  models::bind_working(parameters, map, at::kFloat);
  Parameter& p = parameters.at("layers.0.ffn.up.weight");
  const at::Tensor target = -p.master.clone();
  const auto distance = [&] {
    return (p.working.detach() - target).norm().item<double>() / target.norm().item<double>();
  };
  EXPECT_NEAR(distance(), 2.0, 0.1);
  for (int step = 0; step < 200; ++step) {
    parameters.zero_gradients();
    (0.5 * (p.working - target).square().sum()).backward();
    p.master.sub_(map.pull_back(p, p.working.grad()), 0.02);
    models::refresh_working(parameters, map);
  }
  // Without the grid 2 * .98^200 = .035 would be left; the grid itself leaves about .086 (grid_test).
  EXPECT_LT(distance(), 2 * (0.035 + 0.086));
}

}  // namespace
}  // namespace retort::quantize
