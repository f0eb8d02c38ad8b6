// tests/fake_device/recipe_test.cpp shows it on a device.
#include "recipes/model_memory.h"

#include <gmock/gmock.h>

#include <new>

#include "core/error.h"
#include "tests/train/tiny_model.h"

namespace retort::recipes {

TEST(ModelMemory, ARefusalNamesWhatWasDoneAndTheWeights) {
  train::TinyModel tiny;
  const auto doing = [&](const std::function<void()>& work) {
    work_with({&tiny.model}, at::kCPU, "evaluation", "do less", work);
  };
  EXPECT_NO_THROW(doing([] {}));
  EXPECT_THROW(doing([] { throw DataError("another"); }), DataError);
  try {
    doing([] { throw std::bad_alloc(); });
    ADD_FAILURE() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                ::testing::ContainsRegex("evaluation: out of memory .*weights [0-9.]+ .B.*do less"));
  }
  const at::Tensor before = tiny.model.parameters().unique().front().working;
  bring_to_device("the model", tiny.model, at::kCPU);
  EXPECT_TRUE(tiny.model.parameters().unique().front().working.is_same(before)) << "it is there";
}

}  // namespace retort::recipes
