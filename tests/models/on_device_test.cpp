// Where masters and working copies are after a move. Shapes alone: tests/fake_device computes there.
#include "models/on_device.h"

#include <gtest/gtest.h>

#include "tests/models/tiny.h"

namespace retort::models {
namespace {

std::unique_ptr<Decoder> tiny(at::ScalarType working) {
  auto model = testing::random_model(testing::tiny_llama());
  IdentityMap identity;
  bind_working(model->parameters(), identity, working);
  return model;
}

}  // namespace

TEST(OnDevice, WhatSharesStorageStillDoes) {
  const auto model = tiny(at::kFloat);
  EXPECT_TRUE(device_of(model->parameters()).is_cpu());
  move_to(model->parameters(), at::kMeta);
  EXPECT_TRUE(device_of(model->parameters()).is_meta());
  for (const Parameter& p : model->parameters().unique()) {
    EXPECT_TRUE(p.master.is_meta()) << p.name;
    EXPECT_TRUE(p.working.is_alias_of(p.master)) << p.name;
    EXPECT_TRUE(p.working.requires_grad()) << p.name;
  }
}

// A frozen master with a copy that is multiplied instead stays where it is.
TEST(OnDevice, WhatNoStepChangesStaysOnTheHost) {
  const auto model = tiny(at::kBFloat16);
  Parameter& frozen = model->parameters().at("layers.0.ffn.up.weight");
  frozen.freeze();
  move_to(model->parameters(), at::kMeta);
  EXPECT_TRUE(frozen.master.is_cpu());
  EXPECT_TRUE(frozen.working.is_meta());
  EXPECT_TRUE(model->parameters().at("layers.0.ffn.down.weight").master.is_meta());
}

TEST(OnDevice, AModelThatIsNotTrainedSendsItsWorkingCopiesAlone) {
  const auto model = tiny(at::kBFloat16);
  move_working_to(model->parameters(), at::kMeta);
  for (const Parameter& p : model->parameters().unique()) {
    EXPECT_TRUE(p.working.is_meta()) << p.name;
    EXPECT_TRUE(p.master.is_cpu()) << p.name;
  }
}

}  // namespace retort::models
