#include "models/spec_json.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "models/family.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

TEST(SpecJson, ComesBackEqual) {
  DecoderSpec llama = testing::tiny_llama();
  llama.share_ffn = true;
  llama.tokens = 3;
  llama.repeat = 2;
  llama.norm_eps = 1e-6;
  llama.rope_scaling = {"llama3", 32.0, 1.0, 4.0, 4096};
  for (const DecoderSpec& spec :
       {llama, testing::tiny_gpt2(), families().at("bitnet").defaults, families().at("stlm").defaults}) {
    const formats::Json json = to_json(spec);
    EXPECT_TRUE(from_json(formats::parse_json(json.dump(), "text"), "manifest.json") == spec) << json.dump();
  }
  EXPECT_EQ(to_json(testing::tiny_gpt2())["norm"], "layer");
}

// Every key of the walk counts: dropping any is noticed, and so is changing any.
TEST(SpecJson, RefusesMissingUnknownAndMistypedKeys) {
  const formats::Json good = to_json(testing::tiny_llama());
  for (const auto& [key, value] : good.items()) {
    formats::Json missing = good, mistyped = good;
    missing.erase(key);
    mistyped[key] = formats::Json::array();
    if (key == "sub_norms")
      EXPECT_TRUE(from_json(missing, "m") == testing::tiny_llama());  // a checkpoint older than the key
    else
      EXPECT_THROW(from_json(missing, "m"), DataError) << key;
    EXPECT_THROW(from_json(mistyped, "m"), DataError) << key;
  }
  formats::Json unknown = good, word = good, nested = good;
  unknown["witdh"] = 3;
  word["norm"] = "batch";
  nested["rope_scaling"]["beta"] = 1.0;
  try {
    from_json(unknown, "manifest.json");
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "manifest.json: unknown key witdh; did you mean \"width\"?");
  }
  EXPECT_THROW(from_json(word, "m"), DataError);
  EXPECT_THROW(from_json(nested, "m"), DataError);
  EXPECT_THROW(from_json(formats::Json(3), "m"), DataError);
}

TEST(SpecJson, WordsOfTheChoices) {
  EXPECT_THAT(choice_words<NormKind>(), ::testing::ElementsAre("rms", "layer", "rms_unit_offset"));
  EXPECT_EQ(from_word<FfnKind>("gelu"), FfnKind::kGelu);
  EXPECT_EQ(to_word(PositionKind::kLearned), "learned");
  EXPECT_THROW(from_word<PositionKind>("alibi"), ConfigError);
}

}  // namespace
}  // namespace retort::models
