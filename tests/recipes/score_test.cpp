#include "recipes/score.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::recipes {

using artifacts::tiny_model;

// A bf16 run on a grid is judged on the grid's f32 values, not on their bf16 copies.
TEST(Score, IsOfTheMapsF32Weights) {
  testing::TemporaryDirectory directory;
  const auto tokenizer = data::make_byte_tokenizer();
  std::vector<int32_t> ids(500);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * i % 251);
  data::TokenShardWriter writer(local_files(), directory / "text", *tokenizer, "made up");
  writer.add(ids, ids.size());
  writer.finish();
  const data::TokenShards text(directory / "text");
  const auto comm = comm::make_self_comm();

  const auto model = tiny_model(6);
  quantize::QuantizeOptions
      options;  // with scales of its own, and with what the matrices multiply rounded too
  options.weights.grid = "lsq4";
  options.activations = "int8";
  quantize::QuantizeMap map(options, model->parameters());
  map.begin_step(0);
  models::bind_working(model->parameters(), map, at::kFloat);
  const eval::TextScore f32 = score_f32(*model, map, text, 64, *comm);
  models::bind_working(model->parameters(), map, at::kBFloat16);
  const eval::TextScore of_bf16_run = score_f32(*model, map, text, 64, *comm);
  EXPECT_EQ(f32.nats, of_bf16_run.nats);
  EXPECT_NE(f32.nats, eval::score_text(*model, text, 64, *comm).nats);
  EXPECT_EQ(score_json(f32, 64).at("bytes_scored"), 500);
}

}  // namespace retort::recipes
