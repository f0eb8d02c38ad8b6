#include "models/weight_groups.h"

#include <gtest/gtest.h>

#include <set>

#include "models/adapters.h"
#include "models/shape_of.h"
#include "tests/models/tiny.h"

namespace retort::models {
namespace {

using Read = std::pair<int64_t, int64_t>;

at::Tensor through_three(const GroupReads& reads, const at::Tensor& x) {
  at::Tensor y = x;
  for (int64_t group = 0; group < 3; ++group) {
    reads.forward(group);
    y = y * 2;
    reads.backward(group, y);
  }
  return y;
}

}  // namespace

TEST(WeightGroups, AreReadForwardsThenBackwards) {
  GroupReads reads(3);
  std::vector<Read> told;
  reads.on_use([&](int64_t now, int64_t next) { told.emplace_back(now, next); });
  const at::Tensor y = through_three(reads, at::ones({2}).requires_grad_());
  EXPECT_EQ(told, (std::vector<Read>{{0, 1}, {1, 2}, {2, 1}}));
  told.clear();
  y.sum().backward();
  EXPECT_EQ(told, (std::vector<Read>{{2, 1}, {1, -1}, {-1, -1}}));
  told.clear();
  const at::NoGradGuard no_grad;
  through_three(reads, at::ones({2}));
  EXPECT_EQ(told, (std::vector<Read>{{0, 1}, {1, 2}, {2, -1}})) << "no backward pass follows";
}

TEST(WeightGroups, HoldEveryWeightOfEveryFamily) {
  for (const DecoderSpec& spec : testing::tiny_families()) {
    const auto model = testing::random_model(spec);
    std::set<const Parameter*> held;
    const auto groups = model->weight_groups()->groups();
    EXPECT_EQ(std::ssize(groups), spec.layers + 2) << spec.family;
    for (const auto& group : groups) held.insert(group.begin(), group.end());
    for (const Parameter& p : model->parameters().unique())
      EXPECT_TRUE(held.contains(&p)) << spec.family << " " << p.name;
  }
}

// A shape has the parameters, aliases and adapters of its model, and what that borrows.
TEST(ShapeOf, IsTheModelWithoutItsValues) {
  DecoderSpec spec = testing::tiny_llama();
  spec.share_ffn = true;
  spec.tie_embeddings = true;
  AdapterOptions options;
  options.rank = 2;
  const auto model = adapt(testing::random_model(spec), options, 5);
  const auto shape = shape_of(*model, at::kMeta);
  ASSERT_EQ(shape->parameters().unique().size(), model->parameters().unique().size());
  for (const Parameter& p : model->parameters().unique()) {
    const Parameter& own = shape->parameters().at(p.name);
    EXPECT_EQ(own.shape, p.shape) << p.name;
    EXPECT_EQ(own.uses, p.uses) << p.name;
    EXPECT_EQ(own.borrowed, p.borrowed) << p.name;
    if (p.borrowed)
      EXPECT_TRUE(own.master.is_same(p.master)) << p.name;
    else
      EXPECT_TRUE(own.master.is_meta()) << p.name;
    for (const std::string& use : p.uses)
      EXPECT_EQ(static_cast<bool>(shape->parameters().adapter(use)),
                static_cast<bool>(model->parameters().adapter(use)));
  }
}

}  // namespace retort::models
