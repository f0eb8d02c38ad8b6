#include "models/decoder_spec.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "models/family.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

struct Mistake {
  const char* key;  // that the message must name
  std::function<void(DecoderSpec&)> make;
};

const Mistake kMistakes[] = {
    {"model.family", [](DecoderSpec& s) { s.family = "lama"; }},
    {"model.vocabulary", [](DecoderSpec& s) { s.vocabulary = 0; }},
    {"model.context", [](DecoderSpec& s) { s.context = -1; }},
    {"model.layers", [](DecoderSpec& s) { s.layers = 1 << 20; }},
    {"model.width", [](DecoderSpec& s) { s.width = 0; }},
    {"model.kv_heads", [](DecoderSpec& s) { s.kv_heads = 0; }},
    {"model.heads must be a multiple of model.kv_heads, got 4 and 3", [](DecoderSpec& s) { s.kv_heads = 3; }},
    {"model.head_dim must be even", [](DecoderSpec& s) { s.head_dim = 7; }},
    {"model.ffn_width", [](DecoderSpec& s) { s.ffn_width = 0; }},
    {"model.layers must be a multiple of model.repeat, got 2 and 3", [](DecoderSpec& s) { s.repeat = 3; }},
    {"model.share.keep_first must lie in [0, 1], got 2",
     [](DecoderSpec& s) {
       s.share_ffn = true;
       s.keep_first = 2;
     }},
    {"model.share.keep_last must lie in [0, 0], got 1",
     [](DecoderSpec& s) {
       s.share_ffn = true;
       s.keep_first = s.keep_last = 1;
     }},
    {"model.share.keep_first must be a multiple of model.repeat, got 1 and 2",
     [](DecoderSpec& s) {
       s.repeat = 2;
       s.share_ffn = true;
       s.keep_first = 1;
     }},
    {"model.share.keep_first and keep_last need something that is shared",
     [](DecoderSpec& s) { s.keep_first = 1; }},
    {"model.share.lora_rank needs model.share.ffn all", [](DecoderSpec& s) { s.lora_rank = 4; }},
    {"model.share.lora_rank must lie in [0, 32], got 33",
     [](DecoderSpec& s) {
       s.share_ffn = true;
       s.lora_rank = 33;
     }},
    {"model.norm_eps", [](DecoderSpec& s) { s.norm_eps = 0; }},
    {"model.rope_theta", [](DecoderSpec& s) { s.rope_theta = std::nan(""); }},
    {"model.rope_scaling.kind", [](DecoderSpec& s) { s.rope_scaling.kind = "yarn"; }},
    {"model.rope_scaling.factor",
     [](DecoderSpec& s) {
       s.rope_scaling = {"linear", 0.0};
     }},
    {"model.rope_scaling.high_freq_factor",
     [](DecoderSpec& s) {
       s.rope_scaling = {"llama3", 8.0, 4.0, 4.0};
     }},
    {"model.family llama", [](DecoderSpec& s) { s.norm = NormKind::kLayer; }},
    {"model.family llama", [](DecoderSpec& s) { s.positions = PositionKind::kLearned; }},
};

TEST(DecoderSpec, NamesTheKeyOfAMistake) {
  EXPECT_NO_THROW(testing::tiny_llama().validate());
  for (const Mistake& m : kMistakes) {
    DecoderSpec spec = testing::tiny_llama();
    m.make(spec);
    try {
      spec.validate();
      ADD_FAILURE() << "accepted: " << m.key;
    } catch (const ConfigError& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr(m.key));
    }
    EXPECT_THROW(Decoder{spec}, ConfigError);
  }
}

TEST(DecoderSpec, Gpt2HasItsOwnRules) {
  EXPECT_NO_THROW(testing::tiny_gpt2().validate());
  DecoderSpec grouped = testing::tiny_gpt2(), wide = testing::tiny_gpt2(), bare = testing::tiny_gpt2();
  grouped.kv_heads = 2;
  wide.head_dim = 16;
  bare.ffn_bias = false;
  for (const DecoderSpec& spec : {grouped, wide, bare}) EXPECT_THROW(spec.validate(), ConfigError);
}

TEST(DecoderSpec, ComparesEveryField) {
  DecoderSpec other = testing::tiny_llama();
  EXPECT_TRUE(other == testing::tiny_llama());
  other.rope_scaling.original_context = 1;
  EXPECT_FALSE(other == testing::tiny_llama());
}

}  // namespace
}  // namespace retort::models
