#include "train/optimizer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"
#include "train/adamw.h"
#include "train/owners.h"

namespace retort::train {
namespace {

using models::Parameters;
using models::Role;

// Sizes that leave a tail of every kind, one longer than a piece of work, one of each role.
struct Problem {
  Parameters parameters;
  std::vector<at::Tensor> gradients;
  Problem() {
    parameters.add("embed.weight", {7, 5}, Role::kEmbedding);
    parameters.add("matrix", {300, 131}, Role::kMatrix);
    parameters.add("head", {3}, Role::kHead);
    parameters.add("norm", {8}, Role::kNorm);
    parameters.add("bias", {1}, Role::kBias);
    for (models::Parameter& p : parameters.unique()) Random(1, p.name).fill_normal(p.master, 0.5);
  }
  void fill_gradients(uint64_t step) {
    gradients.clear();
    for (const models::Parameter& p : parameters.unique()) {
      gradients.push_back(at::empty_like(p.master));
      Random(2, p.name, step).fill_normal(gradients.back(), 0.1);
    }
  }
};

// The formula, in f64, as published.
struct Reference {
  at::Tensor p, m, v;
  void step(const at::Tensor& gradient, double lr, double wd, const OptimizerOptions& o, double t) {
    const at::Tensor g = gradient.to(at::kDouble);
    p.mul_(1 - lr * wd);
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    p -= lr * (m / (1 - std::pow(o.beta1, t))) / (v.sqrt() / std::sqrt(1 - std::pow(o.beta2, t)) + o.eps);
  }
};

void expect_reference(const OptimizerOptions& options, const std::vector<double>& decays) {
  Problem problem;
  std::vector<Reference> references;
  for (const models::Parameter& p : problem.parameters.unique())
    references.push_back({p.master.to(at::kDouble), at::zeros_like(p.master, at::kDouble),
                          at::zeros_like(p.master, at::kDouble)});
  const auto optimizer = make_optimizer(options, problem.parameters);
  constexpr int kSteps = 10;
  for (int t = 1; t <= kSteps; ++t) {
    const double lr = 1e-2 / t;
    problem.fill_gradients(static_cast<uint64_t>(t));
    optimizer->step(problem.parameters, problem.gradients, lr);
    for (size_t i = 0; i < references.size(); ++i)
      references[i].step(problem.gradients[i], lr, decays[i], options, t);
  }
  // A step rounds about ten times, each time by at most 2^-24 of a value no larger than the weights.
  const double tolerance = kSteps * 10 * std::ldexp(1.0, -24);
  for (size_t i = 0; i < references.size(); ++i)
    EXPECT_LE(testing::relative_error(problem.parameters.unique()[i].master.to(at::kDouble), references[i].p),
              tolerance)
        << problem.parameters.unique()[i].name;
}

// Copies of the masters.
std::vector<at::Tensor> masters(const Parameters& parameters) {
  std::vector<at::Tensor> out;
  for (const models::Parameter& p : parameters.unique()) out.push_back(p.master.clone());
  return out;
}

void take_steps(Problem& problem, Optimizer& optimizer, int first, int last) {
  for (int t = first; t <= last; ++t) {
    problem.fill_gradients(static_cast<uint64_t>(t));
    std::vector<at::Tensor> own;
    for (size_t i = 0; const models::Parameter& p : problem.parameters.unique()) {
      const at::Tensor& gradient = problem.gradients[i++];
      own.push_back(gradient.defined() ? owned(p, gradient) : gradient);
    }
    optimizer.step(problem.parameters, own, 1e-2);
  }
}

std::vector<at::Tensor> masters_after(int threads, int steps) {
  at::set_num_threads(threads);
  Problem problem;
  take_steps(problem, *make_optimizer({}, problem.parameters), 1, steps);
  return masters(problem.parameters);
}

void expect_same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(testing::same_bits(a[i], b[i])) << i;
}

}  // namespace

TEST(AdamW, FollowsTheFormula) { expect_reference({}, {0, 0.1, 0.1, 0, 0}); }

TEST(AdamW, DecaysWhatItIsToldTo) {
  OptimizerOptions options;
  options.weight_decay = 0.5;
  options.decay_embeddings = true;
  expect_reference(options, {0.5, 0.5, 0.5, 0, 0});
  options.decay_all = true;
  expect_reference(options, {0.5, 0.5, 0.5, 0.5, 0.5});
}

TEST(AdamW, TakesNoPartOfTheThreadCount) {
  const int before = at::get_num_threads();
  const auto one = masters_after(1, 3), three = masters_after(3, 3);
  at::set_num_threads(before);
  expect_same(one, three);
}

TEST(AdamW, ElementsDoNotKnowTheirPlace) {
  // The same number in a vector's lane and in a tail gets the same bits.
  Parameters parameters;
  parameters.add("p", {8 + 3}, Role::kMatrix).master.fill_(0.3);
  const auto optimizer = make_optimizer({}, parameters);
  for (int t = 0; t < 5; ++t) optimizer->step(parameters, {at::full({11}, 0.017 * (t + 1))}, 1e-3);
  const at::Tensor& p = parameters.unique()[0].master;
  EXPECT_TRUE(testing::same_bits(p, p[0].expand({11}).contiguous()));
}

TEST(AdamW, StateContinuesBitForBit) {
  Problem whole, parts;
  take_steps(whole, *make_optimizer({}, whole.parameters), 1, 6);

  const auto first = make_optimizer({}, parts.parameters);
  take_steps(parts, *first, 1, 3);
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : first->state()) state.emplace(name, tensor.clone());
  EXPECT_EQ(state.size(), 1 + 2 * 5u);
  const auto second = make_optimizer({}, parts.parameters);
  second->set_state(state);
  take_steps(parts, *second, 4, 6);
  expect_same(masters(parts.parameters), masters(whole.parameters));
}

TEST(AdamW, RefusesForeignState) {
  Problem problem;
  const auto optimizer = make_optimizer({}, problem.parameters);
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : optimizer->state()) state.emplace(name, tensor.clone());
  auto without = state;
  without.erase("adamw.v.norm");
  EXPECT_THROW(optimizer->set_state(without), CheckpointError);
  auto reshaped = state;
  reshaped["adamw.m.matrix"] = at::zeros({131, 300});
  EXPECT_THROW(optimizer->set_state(reshaped), CheckpointError);
  auto foreign = state;
  foreign["muon.buffer.matrix"] = at::zeros({1});
  EXPECT_THROW(optimizer->set_state(foreign), CheckpointError);
  optimizer->set_state(state);
}

TEST(AdamW, AFrozenParameterHasNoStateAndDoesNotDecay) {
  Problem all, some;
  some.parameters.at("matrix").freeze();
  const auto of_all = make_optimizer({}, all.parameters), optimizer = make_optimizer({}, some.parameters);
  EXPECT_EQ(optimizer->state().size(), 1 + 2 * 4u);
  for (const auto& [name, tensor] : optimizer->state()) EXPECT_EQ(name.find("matrix"), name.npos) << name;
  const std::vector<at::Tensor> start = masters(all.parameters);
  for (int t = 1; t <= 3; ++t) {
    all.fill_gradients(static_cast<uint64_t>(t));
    of_all->step(all.parameters, all.gradients, 1e-2);
    some.gradients = all.gradients;
    some.gradients[1] = at::Tensor();
    optimizer->step(some.parameters, some.gradients, 1e-2);
  }
  std::vector<at::Tensor> expected = masters(all.parameters);
  expected[1] = start[1];
  expect_same(masters(some.parameters), expected);
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : of_all->state()) state.emplace(name, tensor);
  EXPECT_THROW(optimizer->set_state(state), CheckpointError) << "of a run that trained it";
}

TEST(AdamW, StepsOwnedBlocksOnly) {
  Problem all, some;
  models::Parameter& matrix = some.parameters.at("matrix");
  ASSERT_EQ(matrix.placement.owned.count(), 2);
  const int64_t kept = matrix.placement.owned[0].end;
  matrix.placement.owned.begin = kept;
  const at::Tensor before = matrix.master.clone();
  take_steps(all, *make_optimizer({}, all.parameters), 1, 2);
  take_steps(some, *make_optimizer({}, some.parameters), 1, 2);
  EXPECT_TRUE(testing::same_bits(matrix.master.slice(0, 0, kept), before.slice(0, 0, kept)));
  EXPECT_TRUE(
      testing::same_bits(matrix.master.slice(0, kept), all.parameters.at("matrix").master.slice(0, kept)));
}

// LoRA+: B and the lengths of rows at a rate of their own, all else at the step's.
TEST(AdamW, TheSecondHalfOfAnAdapterHasItsOwnRate) {
  const auto problem = [] {
    auto out = std::make_unique<Problem>();
    out->parameters.add("a", {2, 5}, Role::kLoraA).master.fill_(0.5);
    out->parameters.add("b", {7, 2}, Role::kLoraB).master.fill_(0.5);
    out->parameters.add("m", {7}, Role::kMagnitude).master.fill_(0.5);
    return out;
  };
  const auto steps = [&](double lora_plus, double lr) {
    const auto one = problem();
    const auto optimizer = make_optimizer({.lora_plus = lora_plus}, one->parameters);
    for (uint64_t t = 1; t <= 3; ++t) {
      one->fill_gradients(t);
      optimizer->step(one->parameters, one->gradients, lr);
    }
    return masters(one->parameters);
  };
  const auto plus = steps(8.0, 1e-3), slow = steps(1.0, 1e-3), fast = steps(1.0, 8e-3);
  for (size_t i = 0; i < plus.size(); ++i)
    EXPECT_TRUE(testing::same_bits(plus[i], i + 2 < plus.size() ? slow[i] : fast[i])) << i;
}

TEST(Optimizer, RefusesARunWithoutAnythingToTrain) {
  Parameters parameters;
  EXPECT_THROW(make_optimizer({}, parameters), ConfigError);
  parameters.add("p", {3}, Role::kMatrix).freeze();
  EXPECT_THROW(make_optimizer({}, parameters), ConfigError);
}

TEST(Optimizer, RefusesAnUnknownKindByName) {
  Problem problem;
  EXPECT_THROW(make_optimizer({.kind = "adam"}, problem.parameters), ConfigError);
  EXPECT_EQ(optimizer_kinds(), std::vector<std::string>{"adamw"});
}

}  // namespace retort::train
