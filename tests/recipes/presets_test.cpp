#include "recipes/presets.h"

#include <gmock/gmock.h>

#include <map>

#include "core/error.h"

namespace retort::recipes {

// Published counts (reference: each model's paper or card; reproduced by instantiating the shapes).
TEST(Presets, HaveTheirPublishedParameterCounts) {
  const std::map<std::string, int64_t> published = {
      {"gpt2-124m", 124'439'808},      {"llama-3.2-1b", 1'235'814'400}, {"llama-3.2-3b", 3'212'749'824},
      {"mobilellm-125m", 124'635'456}, {"mobilellm-350m", 345'355'200}, {"mobillama-0.5b", 534'865'920},
      {"smollm2-135m", 134'515'008},   {"smollm2-360m", 361'821'120},   {"tinyllama-1.1b", 1'100'048'384},
  };
  std::vector<std::string> names;
  for (const auto& [name, count] : published) {
    names.push_back(name);
    const models::Decoder decoder(preset_spec(name), at::kMeta);
    EXPECT_EQ(decoder.parameters().stored(), count) << name;
  }
  EXPECT_THAT(preset_names(), ::testing::UnorderedElementsAreArray(names));
}

TEST(Presets, UnknownNamesTheNearest) {
  EXPECT_THROW(
      try { preset_spec("smollm2-135"); } catch (const ConfigError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("did you mean \"smollm2-135m\"?"));
        throw;
      },
      ConfigError);
}

}  // namespace retort::recipes
