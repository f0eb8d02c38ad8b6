#include "quantize/report.h"

#include "core/random.h"
#include "quantize/quantize_map.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

TEST(Report, CountsEachStoredTensorOnce) {
  models::Parameters parameters;
  parameters.add("embed.weight", {64, 64}, models::Role::kEmbedding);
  parameters.alias("lm_head.weight", "embed.weight");
  parameters.add("w", {64, 64}, models::Role::kMatrix);
  parameters.add("norm.weight", {64}, models::Role::kNorm);
  for (models::Parameter& p : parameters.unique()) Random(1, p.name).fill_normal(p.master, 0.1);
  parameters.at("norm.weight").master.zero_();

  QuantizeMap map({}, parameters);  // q4_0, embedding q8_0
  const std::vector<TensorReport> rows = report(map, parameters);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].grid, "q8_0");
  EXPECT_EQ(rows[1].grid, "q4_0");
  EXPECT_EQ(rows[2].grid, "f32");
  EXPECT_LT(rows[0].relative_error, rows[1].relative_error);
  EXPECT_GT(rows[0].relative_error, 0.0);
  EXPECT_EQ(rows[2].relative_error, 0.0);
  EXPECT_DOUBLE_EQ(bits_per_weight(rows), (4096 * 8.5 + 4096 * 4.5 + 64 * 32.0) / 8256);
  EXPECT_DOUBLE_EQ(packed_bytes(rows), (4096 * 8.5 + 4096 * 4.5 + 64 * 32.0) / 8);

  map.enable(false);
  EXPECT_DOUBLE_EQ(bits_per_weight(report(map, parameters)), 32.0);
  EXPECT_EQ(bits_per_weight({}), 0.0);
}

}  // namespace
}  // namespace retort::quantize
