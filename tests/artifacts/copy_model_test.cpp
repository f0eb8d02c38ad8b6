#include "artifacts/copy_model.h"

#include <gtest/gtest.h>

#include "quantize/quantize_map.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {

// Learned scales belong to the grid, so neither copy has them.
TEST(CopyModel, HoldsTheMastersOrTheMapsValues) {
  const auto model = tiny_model(6);
  quantize::QuantizeOptions options;
  options.weights.grid = "lsq4";
  options.activations = "int8";
  quantize::QuantizeMap map(options, model->parameters());
  map.begin_step(0);
  const auto masters = copy_of(*model), values = f32_copy(*model, map);
  EXPECT_LT(masters->parameters().unique().size(), model->parameters().unique().size());
  int on_grid = 0;
  for (const models::Parameter& p : masters->parameters().unique()) {
    const models::Parameter &own = model->parameters().at(p.name), &value = values->parameters().at(p.name);
    EXPECT_TRUE(testing::same_bits(p.master, own.master)) << p.name;
    EXPECT_NE(p.master.data_ptr(), own.master.data_ptr()) << p.name;
    EXPECT_TRUE(testing::same_bits(value.master, map.apply(own, own.master))) << p.name;
    EXPECT_EQ(value.working.data_ptr(), value.master.data_ptr()) << p.name;
    EXPECT_EQ(value.input_map != nullptr, own.input_map != nullptr) << p.name;
    on_grid += testing::same_bits(value.master, own.master) ? 0 : 1;
  }
  EXPECT_GT(on_grid, 0);
}

}  // namespace retort::artifacts
