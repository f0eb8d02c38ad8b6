#include "models/weight_map.h"

#include <atomic>

#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

// y = a x, but only for matrices.
class ScaleMap final : public WeightMap {
 public:
  explicit ScaleMap(double a, bool squares = false) : a_(a), squares_(squares) {}
  at::Tensor apply(const Parameter&, const at::Tensor& x) override { return squares_ ? x * x : x * a_; }
  at::Tensor pull_back(const Parameter& p, const at::Tensor& gradient) override {
    return squares_ ? gradient * 2 * p.master : gradient * a_;
  }
  bool identity_for(const Parameter& p) const override { return p.role != Role::kMatrix; }

 private:
  double a_;
  bool squares_;
};

TEST(WeightMap, IdentityInF32SharesTheMastersStorage) {
  const auto model = testing::random_model(testing::tiny_llama());
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kFloat);
  for (Parameter& p : model->parameters().unique()) {
    EXPECT_TRUE(p.working.is_alias_of(p.master)) << p.name;
    EXPECT_TRUE(p.working.is_leaf() && p.working.requires_grad()) << p.name;
    EXPECT_FALSE(p.master.requires_grad()) << p.name;
  }
  Parameter& up = model->parameters().at("layers.0.ffn.up.weight");
  up.master.mul_(2.0);  // what an optimizer does
  EXPECT_TRUE(testing::same_bits(up.working, up.master));
}

TEST(WeightMap, Bf16IsForMatricesEmbeddingsAndHeads) {
  const auto model = testing::random_model(testing::tiny_gpt2());
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kBFloat16);
  for (const Parameter& p : model->parameters().unique()) {
    const bool narrow = p.role == Role::kMatrix || p.role == Role::kEmbedding || p.role == Role::kHead;
    EXPECT_EQ(p.working.scalar_type(), narrow ? at::kBFloat16 : at::kFloat) << p.name;
    EXPECT_TRUE(testing::same_bits(p.working, p.master.to(p.working.scalar_type()))) << p.name;
  }
}

// What refresh asks a map for, so that one that writes into the working copies makes nothing else.
TEST(WeightMap, RefreshGoesThroughApplyInto) {
  struct Direct final : WeightMap {
    at::Tensor apply(const Parameter&, const at::Tensor&) override {
      ADD_FAILURE() << "a copy in between";
      return {};
    }
    void apply_into(const Parameter&, const at::Tensor& x, const at::Tensor& working) override {
      working.copy_(x).mul_(3);
    }
    at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  } map;
  const auto model = testing::random_model(testing::tiny_llama());
  bind_working(model->parameters(), map, at::kFloat);
  for (const Parameter& p : model->parameters().unique())
    EXPECT_TRUE(testing::same_bits(p.working, p.master * 3)) << p.name;
}

TEST(WeightMap, RefreshKeepsTheTensorAndItsHooks) {
  const auto model = testing::random_model(testing::tiny_llama());
  ScaleMap map(2.0);
  bind_working(model->parameters(), map, at::kBFloat16);
  Parameter& up = model->parameters().at("layers.0.ffn.up.weight");
  int calls = 0;
  up.working.register_hook([&](const at::Tensor&) { ++calls; });
  const at::Tensor before = up.working;
  for (int step = 0; step < 2; ++step) {
    up.working.to(at::kFloat).sum().backward();
    up.master.add_(1.0);
    refresh_working(model->parameters(), map);
  }
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(up.working.is_same(before));
  EXPECT_TRUE(up.working.is_leaf());
  EXPECT_TRUE(testing::same_bits(up.working, (up.master * 2.0).to(at::kBFloat16)));
}

// Small parameters are shared out among threads, a large one is worth all of them.
void add_many_sizes(Parameters& parameters) {
  for (int64_t i = 0; i < 40; ++i)
    parameters.add(fmt::format("w{}", i), {i == 7 ? 600 : 1 + 5 * i, 1024}, Role::kMatrix).master.fill_(1.0);
  parameters.add("norm", {1024}, Role::kNorm).master.fill_(1.0);
}

TEST(WeightMap, RefreshReachesEveryParameterWhateverItsSize) {
  Parameters parameters;
  add_many_sizes(parameters);
  ScaleMap map(2.0);
  bind_working(parameters, map, at::kFloat);
  for (Parameter& p : parameters.unique()) p.master.fill_(3.0);
  refresh_working(parameters, map);
  for (const Parameter& p : parameters.unique())
    EXPECT_TRUE(at::equal(p.working, p.master * (p.name == "norm" ? 1.0 : 2.0))) << p.name;
}

TEST(WeightMap, PullBackReachesEveryParameterAndScalesLast) {
  struct Counting final : WeightMap {
    at::Tensor apply(const Parameter&, const at::Tensor& x) override { return x; }
    at::Tensor pull_back(const Parameter& p, const at::Tensor& gradient) override {
      const int before = pulled++;
      return p.role == Role::kScale ? at::full({1}, before) : gradient * p.master;
    }
    std::atomic<int> pulled = 0;
  } map;
  Parameters parameters;
  parameters.add("w0_scale", {1}, Role::kScale);
  add_many_sizes(parameters);
  std::vector<at::Tensor> working;
  for (Parameter& p : parameters.unique()) {
    p.master.fill_(static_cast<double>(working.size()));
    working.push_back(at::full_like(p.master, 2.0));
  }
  const std::vector<at::Tensor> masters = pull_back(parameters, map, working);
  ASSERT_EQ(masters.size(), working.size());
  EXPECT_EQ(masters[0].item<int>(), 41);
  for (size_t i = 1; i < masters.size(); ++i)
    EXPECT_TRUE(at::equal(masters[i], working[i] * static_cast<double>(i))) << i;
}

// A frozen master does not move, so an optimizer step does not make its working copy again.
TEST(WeightMap, FrozenParametersStayOutOfTraining) {
  Parameters parameters;
  add_many_sizes(parameters);
  for (const char* name : {"w3", "w7"}) parameters.at(name).freeze();  // a small and a large one
  ScaleMap map(2.0);
  bind_working(parameters, map, at::kFloat);
  for (const Parameter& p : parameters.unique()) EXPECT_EQ(p.working.requires_grad(), !p.frozen) << p.name;

  std::vector<at::Tensor> gradients;
  for (Parameter& p : parameters.unique()) {
    p.master.fill_(3.0);
    gradients.push_back(p.frozen ? at::Tensor() : at::ones_like(p.master));
  }
  const std::vector<at::Tensor> masters = pull_back(parameters, map, gradients);
  refresh_trained(parameters, map);
  for (size_t i = 0; const Parameter& p : parameters.unique()) {
    EXPECT_EQ(masters[i++].defined(), !p.frozen) << p.name;
    const double expected = p.frozen ? 2.0 : p.name == "norm" ? 3.0 : 6.0;
    EXPECT_TRUE(at::all(p.working == expected).item<bool>()) << p.name;
  }
  refresh_working(parameters, map);  // a map that has changed makes all of them again
  EXPECT_TRUE(at::all(parameters.at("w3").working == 6.0).item<bool>());
}

// A rank that multiplies with a part of a parameter has working values of that part only.
TEST(WeightMap, WorkingIsTheUsedPart) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Parameters parameters;
    Parameter& rows = parameters.add("rows", {6, 4}, Role::kMatrix);
    Parameter& columns = parameters.add("columns", {6, 4}, Role::kEmbedding);  // identity
    for (Parameter* p : {&rows, &columns}) p->master.copy_(at::arange(24, at::kFloat).view({6, 4}));
    rows.placement.used = {0, 2, 5};
    columns.placement.used = {1, 1, 3};
    ScaleMap map(2.0);
    bind_working(parameters, map, dtype);
    for (int time = 0; time < 2; ++time) {
      EXPECT_TRUE(testing::same_bits(rows.working, (rows.master * 2).slice(0, 2, 5).to(dtype)));
      // ScaleMap scales whatever it is asked for; f32 shares the master, and asks for nothing.
      const at::Tensor values = dtype == at::kFloat ? columns.master : columns.master * 2;
      EXPECT_TRUE(at::equal(columns.working, values.slice(1, 1, 3).to(dtype)));
      rows.master.add_(1.0);
      columns.master.add_(1.0);
      refresh_working(parameters, map);
    }
  }
}

TEST(WeightMap, OnlyParametersThatTheMapChangesLeaveTheirMaster) {
  const auto model = testing::random_model(testing::tiny_llama());
  ScaleMap map(2.0);
  bind_working(model->parameters(), map, at::kFloat);
  for (const Parameter& p : model->parameters().unique())
    EXPECT_EQ(p.working.is_alias_of(p.master), p.role != Role::kMatrix) << p.name;
}

}  // namespace
}  // namespace retort::models
