#include "recipes/stages/judge.h"

#include <gmock/gmock.h>

namespace retort::recipes {

using ::testing::HasSubstr;

TEST(QuantizationTables, ShowWhatThereIs) {
  const std::string table =
      model_table({{.name = "full precision"},
                   {.name = "q",
                    .bits_per_weight = 4.5,
                    .file_bytes = 1234567,
                    .score = eval::TextScore{100, 10, 40},
                    .divergence = eval::Divergence{{.value = 0.25, .standard_error = 0.01},
                                                   {.value = 0.5, .standard_error = 0.1}}}});
  EXPECT_THAT(table, HasSubstr("1,234,567"));
  EXPECT_THAT(table, HasSubstr("0.25000"));
  EXPECT_THAT(table, HasSubstr("50.0%"));
  const std::string tensors = tensor_table({{"a", "q4_0", 64, 4.5, 0.1}, {"norm", "f32", 64, 32, 0}});
  EXPECT_THAT(tensors, HasSubstr("q4_0"));
  EXPECT_THAT(tensors, ::testing::Not(HasSubstr("norm")));
}

}  // namespace retort::recipes
