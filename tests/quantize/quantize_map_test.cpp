#include "quantize/quantize_map.h"

#include "core/random.h"
#include "models/linear.h"
#include "quantize/activations.h"
#include "quantize/device_fit.h"
#include "quantize/learned_scale.h"
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

// Rows that every grid fits.
struct WideParameters : Parameters {
  WideParameters() {
    add("embed.weight", {40, 256}, Role::kEmbedding);
    add("norm.weight", {256}, Role::kNorm);
    add("layers.0.ffn.up.weight", {48, 256}, Role::kMatrix);
    add("layers.0.ffn.down.weight", {256, 512}, Role::kMatrix);
    alias("layers.1.ffn.up.weight", "layers.0.ffn.up.weight");
    for (Parameter& p : unique()) Random(3, p.name).fill_normal(p.master, 0.05);
  }
};

QuantizeOptions all(const std::string& grid, int64_t from_step = 0) {
  return {.weights = {grid}, .embedding = {grid}, .head = {grid}, .from_step = from_step};
}

TEST(QuantizeMap, EachRoleTakesItsGrid) {
  SampleParameters parameters;
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
  SampleParameters parameters(/*tied=*/true);
  const QuantizeMap map({.weights = {"q4_0"}, .embedding = {"q8_0"}, .head = {"q4_0"}}, parameters);
  EXPECT_EQ(map.grid_of(parameters.at("lm_head.weight"))->name, "q8_0");
}

TEST(QuantizeMap, PackedEqualsAppliedBitForBit) {
  for (const Grid& grid : grids()) {
    if (!grid.ggml) continue;
    WideParameters parameters;
    QuantizeMap map(all(grid.name), parameters);
    map.begin_step(0);
    for (const Parameter& p : parameters.unique()) {
      if (p.role == Role::kScale) continue;
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
  SampleParameters parameters;
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
        "  b.weight: rows must be a multiple of 32 for q4_0, got 48; grids that fit: fp8, nvfp4");
  }
}

TEST(QuantizeMap, MisfitsOfOneKindAreOneLine) {
  Parameters parameters;
  for (int layer = 0; layer < 12; ++layer) {
    parameters.add(fmt::format("layers.{}.up.weight", layer), {8, 48}, Role::kMatrix);
    parameters.add(fmt::format("layers.{}.down.weight", layer), {8, 100}, Role::kMatrix);
  }
  try {
    QuantizeMap map(all("q4_0"), parameters);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_TRUE(
        std::string(error.what())
            .ends_with("(quantize.fallback, --fallback):\n"
                       "  layers.0.up.weight and 11 more: rows must be a multiple of 32 for q4_0, got "
                       "48; grids that fit: fp8, nvfp4\n"
                       "  layers.0.down.weight and 11 more: rows must be a multiple of 32 for q4_0, "
                       "got 100; grids that fit: fp8"))
        << error.what();
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

// The values are the grid's own; what grows is the file.
TEST(QuantizeMap, AWiderFallbackKeepsTheGrid) {
  Parameters parameters;
  parameters.add("a.weight", {8, 96}, Role::kMatrix).master.normal_();
  parameters.add("b.weight", {8, 512}, Role::kMatrix).master.normal_();
  QuantizeOptions options = all("ternary_row");
  options.fallback = "wider";
  QuantizeMap map(options, parameters);
  const Parameter& a = parameters.at("a.weight");
  EXPECT_EQ(map.grid_of(a)->name, "ternary_row");
  EXPECT_EQ(map.grid_of(a)->ggml, formats::GgmlType::Q4_0);
  EXPECT_EQ(map.grid_of(a)->bits_per_weight, 4.5);
  EXPECT_EQ(map.grid_of(parameters.at("b.weight"))->ggml, formats::GgmlType::TQ1_0);
  const Grid& grid = grids().at("ternary_row");
  EXPECT_TRUE(testing::same_bits(map.apply(a, a.master), dequantize_blocks(grid.quantize(a.master))));
}

TEST(QuantizeMap, GridsThatADeviceHasNoKernelForAreNamed) {
  std::vector<std::string> staged;
  for (const Grid& grid : grids()) {
    EXPECT_FALSE(grid.learned && device_fit(grid)) << grid.name << ": scales are learned or fitted";
    if (!works_on_device(grid)) staged.push_back(grid.name);
  }
  EXPECT_EQ(staged, (std::vector<std::string>{"q4_k", "q6_k", "mxfp4", "nvfp4"}));
  Parameters parameters;
  parameters.add("a.weight", {8, 256}, Role::kMatrix);
  parameters.add("b.weight", {8, 256}, Role::kMatrix);
  QuantizeOptions options = all("q4_0");
  EXPECT_TRUE(staged_grids(QuantizeMap(options, parameters), parameters).empty());
  options.except = {{.match = "b.*", .grid = "q6_k"}};
  EXPECT_EQ(staged_grids(QuantizeMap(options, parameters), parameters), std::vector<std::string>{"q6_k"});
}

TEST(QuantizeMap, UnknownGridIsRefused) {
  SampleParameters parameters;
  EXPECT_THROW(QuantizeMap(all("q3"), parameters), ConfigError);
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

// --- learned scales

const Parameter& scale_of(const Parameters& parameters, const std::string& weight) {
  return parameters.at(weight + "_scale");
}

TEST(QuantizeMap, LearnedScalesAreParametersFittedAtTheFirstStep) {
  WideParameters parameters;
  QuantizeMap map({.weights = {"lsq4"}, .embedding = {"seq2"}, .head = {"none"}, .from_step = 2}, parameters);
  const int64_t stored = parameters.stored();
  const Parameter& theta = scale_of(parameters, "layers.0.ffn.up.weight");
  EXPECT_EQ(theta.role, Role::kScale);
  EXPECT_EQ(theta.master.sizes(), (std::vector<int64_t>{48, 1}));
  EXPECT_EQ(theta.copies(), 0);
  EXPECT_EQ(parameters.stored(), 40 * 256 + 256 + 48 * 256 + 256 * 512) << "scales are no weights";
  EXPECT_EQ(stored, parameters.stored());
  models::bind_working(parameters, map, at::kFloat);
  EXPECT_FALSE(map.begin_step(1));
  EXPECT_TRUE(theta.master.isnan().all().item<bool>());
  EXPECT_TRUE(same_bits(map.pull_back(theta, at::zeros({48, 1})), at::zeros({48, 1})))
      << "off: nothing moves it";
  EXPECT_TRUE(map.begin_step(2));
  EXPECT_TRUE(same_bits(
      theta.master, theta_of(grids().at("lsq4").fit(parameters.at("layers.0.ffn.up.weight").master, {}))));
  const at::Tensor fitted = theta.master.clone();
  parameters.at("layers.0.ffn.up.weight").master.mul_(3.0);
  EXPECT_FALSE(map.begin_step(3)) << "a scale that is there is trained, not fitted again";
  EXPECT_TRUE(same_bits(theta.master, fitted));
}

TEST(QuantizeMap, AFrozenWeightFreezesItsScale) {
  WideParameters parameters;
  Parameter& up = parameters.at("layers.0.ffn.up.weight");
  up.freeze();
  QuantizeMap map(all("lsq4"), parameters);
  models::bind_working(parameters, map, at::kFloat);
  const Parameter& theta = scale_of(parameters, up.name);
  EXPECT_TRUE(theta.frozen);
  EXPECT_FALSE(theta.working.requires_grad());
  EXPECT_FALSE(scale_of(parameters, "embed.weight").frozen);
  ASSERT_TRUE(map.begin_step(0));
  EXPECT_TRUE(same_bits(theta.master, theta_of(grids().at("lsq4").fit(up.master, {}))))
      << "fitted all the same";
}

// Blocks are what owners are given: a tensor's own scale must not be torn apart, and a row's goes with the
// row.
TEST(QuantizeMap, BlocksKeepTogetherWhatSharesAScale) {
  Parameters parameters;
  for (const char* name : {"rows", "tensor", "learned"})
    parameters.add(name, {600, 256}, Role::kMatrix).master.fill_(1.0);
  QuantizeMap map({.weights = {"ternary_row"},
                   .embedding = {"none"},
                   .head = {"none"},
                   .except = {{"tensor", "ternary"}, {"learned", "lsq4"}}},
                  parameters);
  models::bind_working(parameters, map, at::kFloat);
  const auto blocks = [&](const char* name) { return parameters.at(name).placement.owned; };
  EXPECT_EQ(blocks("rows").count(), 5);
  EXPECT_EQ(blocks("rows"), models::cut_into_blocks({600, 256}));
  EXPECT_EQ(blocks("tensor").count(), 1);
  EXPECT_EQ(blocks("learned"), blocks("rows"));
  EXPECT_EQ(blocks("learned_scale"), blocks("learned"));
}

TEST(QuantizeMap, AScaleGetsTheGradientOfItsWeight) {
  WideParameters parameters;
  QuantizeMap map(all("lsq3"), parameters);
  models::bind_working(parameters, map, at::kFloat);
  ASSERT_TRUE(map.begin_step(0));
  models::refresh_working(parameters, map);
  Parameter& p = parameters.at("layers.0.ffn.up.weight");
  const Parameter& theta = scale_of(parameters, p.name);
  const at::Tensor g = p.working.detach().square();
  const LearnedGradient expected = pull_back(grids().at("lsq3"), p.master, theta.master, g);
  EXPECT_TRUE(same_bits(map.pull_back(p, g), expected.weight));
  EXPECT_TRUE(same_bits(map.pull_back(theta, at::zeros_like(theta.master)), expected.theta));
}

// Descent on masters and scales together ends nearer to a target than on masters under the scales of the
// start.
TEST(QuantizeMap, LearnedScalesReachATargetThatFixedOnesDoNot) {
  const auto distance_after = [](bool learn) {
    WideParameters parameters;
    QuantizeMap map(all("seq2"), parameters);
    models::bind_working(parameters, map, at::kFloat);
    map.begin_step(0);
    models::refresh_working(parameters, map);
    Parameter& p = parameters.at("layers.0.ffn.up.weight");
    Parameter& theta = parameters.at(p.name + "_scale");
    const at::Tensor target = p.master * 4.0;
    const double gamma = 1.0 / std::sqrt(static_cast<double>(p.numel()));
    for (int step = 0; step < 300; ++step) {
      const at::Tensor g = p.working.detach() - target;
      p.master.sub_(map.pull_back(p, g), 0.02);
      const at::Tensor of_theta = map.pull_back(theta, {}) / gamma;  // sum over a row of 256
      if (learn) theta.master.sub_(of_theta / (target.square().sum(1, true)), 0.2);
      models::refresh_working(parameters, map);
    }
    return (p.working.detach() - target).norm().item<double>() / target.norm().item<double>();
  };
  const double fixed = distance_after(false), learned = distance_after(true);
  EXPECT_LT(learned, 0.6 * fixed) << fixed;
  EXPECT_LT(learned, 0.45);  // a Gaussian on four levels: .354 at best start (grid_test)
}

TEST(QuantizeMap, TakesTheScalesThatAreThere) {
  WideParameters parameters;
  QuantizeMap first(all("lsq4"), parameters);
  first.begin_step(0);
  parameters.at("embed.weight_scale").master.fill_(-5.0);
  QuantizeMap second(all("lsq4"), parameters);
  EXPECT_FALSE(second.begin_step(0));
  EXPECT_EQ(parameters.at("embed.weight_scale").master[0].item<float>(), -5.0f);
  EXPECT_TRUE(same_grids(all("lsq4"), all("lsq4", 7)));
  EXPECT_FALSE(same_grids(all("lsq4"), all("lsq3")));
}

// --- exceptions, ranges, inputs

TEST(QuantizeMap, ExceptionsGoByAnyNameOfATensor) {
  WideParameters parameters;
  QuantizeOptions options = all("q4_0");
  options.except = {{"layers.1.*", "q8_0"}, {"*.down.weight", "none"}, {"layers.0.*", "q6_k"}};
  const QuantizeMap map(options, parameters);
  EXPECT_EQ(map.grid_of(parameters.at("layers.0.ffn.up.weight"))->name, "q8_0") << "shared with layer 1";
  EXPECT_EQ(map.grid_of(parameters.at("layers.0.ffn.down.weight")), nullptr) << "the first that matches";
  EXPECT_EQ(map.grid_of(parameters.at("embed.weight"))->name, "q4_0");
  options.except = {{"layer.0.*", "none"}};
  EXPECT_THROW(QuantizeMap(options, parameters), ConfigError);
}

TEST(QuantizeMap, IsOnInItsRangeOnly) {
  SampleParameters parameters;
  QuantizeOptions options = all("q4_0", 2);
  options.until_step = 4;
  QuantizeMap map(options, parameters);
  std::string on;
  for (int64_t step = 0; step < 6; ++step) map.begin_step(step), on += map.enabled() ? '1' : '0';
  EXPECT_EQ(on, "001100");
  options.until_step = 2;
  EXPECT_THROW(QuantizeMap(options, parameters), ConfigError);
}

TEST(QuantizeMap, InputsOfQuantizedMatricesAreRoundedWhileItIsOn) {
  WideParameters parameters;
  QuantizeOptions options = all("ternary");
  options.activations = "int8";
  options.except = {{"*.down.weight", "none"}};
  QuantizeMap map(options, parameters);
  models::bind_working(parameters, map, at::kFloat);
  at::Tensor x = at::empty({3, 256});
  Random(4, "x").fill_normal(x, 1.0);
  const Parameter& up = parameters.at("layers.0.ffn.up.weight");
  const models::Linear linear{&up};
  const at::Tensor rounded = activation_kinds().at("int8").map(x);
  EXPECT_FALSE(same_bits(rounded, x));
  EXPECT_TRUE(same_bits(linear(x), at::linear(rounded, up.working)));
  EXPECT_FALSE(parameters.at("layers.0.ffn.down.weight").input_map);
  EXPECT_FALSE(parameters.at("embed.weight").input_map);
  map.enable(false);
  EXPECT_TRUE(same_bits(linear(x), at::linear(x, up.working)));
}

TEST(QuantizeMap, WeightsThatAreNotFiniteAreNamed) {
  WideParameters parameters;
  QuantizeMap map(all("q4_0"), parameters);
  parameters.at("embed.weight").master[3][5] = NAN;
  try {
    map.pack(parameters.at("embed.weight"));
    FAIL();
  } catch (const NonFiniteError& error) {
    EXPECT_STREQ(error.what(), "[quantize] embed.weight: its weights must be finite, and [3, 5] is nan");
  }
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
    p.working.mutable_grad().reset();
    (0.5 * (p.working - target).square().sum()).backward();
    p.master.sub_(map.pull_back(p, p.working.grad()), 0.02);
    models::refresh_working(parameters, map);
  }
  // Without the grid 2 * .98^200 = .035 would be left; the grid itself leaves about .086 (grid_test).
  EXPECT_LT(distance(), 2 * (0.035 + 0.086));
}

}  // namespace
}  // namespace retort::quantize
