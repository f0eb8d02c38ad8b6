#include "artifacts/model_facts.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "formats/json_section.h"
#include "tests/artifacts/tiny.h"

namespace retort::artifacts {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(ModelFacts, ComeBack) {
  ModelFacts facts{tiny_model(1)->spec(), "bytes"};
  facts.quantize.emplace();
  facts.quantize->weights.grid = "int4_g32";
  facts.quantize->except = {{"layers.0.*", "q8_0"}};
  facts.quantize->from_step = 7;
  facts.generation = {{"eos_token_id", {1, 2}}};
  facts.origin.license = "mit";
  const formats::Json json = formats::parse_json(model_facts(facts).dump(1), "manifest");
  EXPECT_TRUE(json.at("quantize").is_object());
  const ModelFacts back = read_model_facts(json, "manifest");
  EXPECT_EQ(back.spec, facts.spec);
  EXPECT_EQ(back.tokenizer, "bytes");
  EXPECT_EQ(back.generation, facts.generation);
  EXPECT_EQ(back.origin, facts.origin);
  EXPECT_EQ(formats::section_to_json(*back.quantize), formats::section_to_json(*facts.quantize));

  const formats::Json least = model_facts({facts.spec});
  EXPECT_EQ(least.size(), 1u);
  const ModelFacts plain = read_model_facts(least, "manifest");
  EXPECT_FALSE(plain.tokenizer || plain.quantize || !plain.generation.empty());
}

TEST(ModelFacts, NameTheKeyThatIsWrong) {
  const auto wrong = [](const char* key, const formats::Json& value, const char* why) {
    formats::Json json = model_facts({tiny_model(1)->spec(), "bytes", quantize::QuantizeOptions{}});
    json[key] = value;
    EXPECT_THAT([&] { read_model_facts(json, "m.json"); }, ThrowsMessage<DataError>(HasSubstr(why)));
  };
  wrong("quantize", {{"weights", {{"grid", "q4"}}}}, "m.json: quantize: weights.grid must be one of");
  wrong("quantize", {{"weigths", {{"grid", "q4_0"}}}}, "unknown key weigths; did you mean \"weights\"?");
  wrong("quantize", 3, "m.json: quantize: must be an object, got 3");
  wrong("quantize", "weights: q4_0\n", "m.json: quantize: weights must be an object, got \"q4_0\"");
  wrong("tokenizer", 3, "\"tokenizer\" must be a string");
  wrong("model", {{"layers", 2}}, "m.json: lacks the key");
  EXPECT_THAT([] { read_model_facts(formats::Json::object(), "m.json"); },
              ThrowsMessage<DataError>("m.json: does not say what model it holds"));
}

}  // namespace retort::artifacts
