#include "recipes/presets.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "models/decoder.h"

namespace retort::recipes {
namespace {

// What a decoder with these published dimensions holds, by the formula alone.
struct Dimensions {
  int64_t layers, width, heads, kv_heads, head_dim, ffn_width, vocabulary;
  bool tied;
  int64_t stored_ffns;                // networks; as many as layers unless they are shared
  int64_t stored_outputs = layers;    // attention output projections
  int64_t norm_elements = 2 * width;  // of a layer
};

int64_t llama_count(const Dimensions& d) {
  const int64_t q = d.width * d.heads * d.head_dim, kv = 2 * d.width * d.kv_heads * d.head_dim;
  return d.layers * (q + kv + d.norm_elements) + d.stored_outputs * q +
         d.stored_ffns * 3 * d.width * d.ffn_width + d.width + d.vocabulary * d.width * (d.tied ? 1 : 2);
}

int64_t gpt_count(int64_t layers, int64_t width, int64_t context) {
  return 50257 * width + context * width + layers * (12 * width * width + 13 * width) + 2 * width;
}

struct Published {
  const char* name;
  int64_t count;    // of the paper, the model's card or its released weights
  int64_t formula;  // from the published dimensions
};

std::vector<Published> published() {
  return {
      {"bitnet-b1.58-2b4t", 2'412'820'480,
       llama_count({30, 2560, 20, 5, 128, 6912, 128256, true, 30, 30, 2 * 2560 + 2560 + 6912})},
      {"gemma3-270m", 268'098'176,
       llama_count({18, 640, 4, 1, 256, 2048, 262144, true, 18, 18, 4 * 640 + 2 * 256})},
      {"gpt2-124m", 124'439'808, gpt_count(12, 768, 1024)},
      {"gpt3-1.3b", 1'315'723'264, gpt_count(24, 2048, 2048)},
      {"gpt3-125m", 125'226'240, gpt_count(12, 768, 2048)},
      {"gpt3-13b", 12'853'386'240, gpt_count(40, 5120, 2048)},
      {"gpt3-175b", 174'604'259'328, gpt_count(96, 12288, 2048)},
      {"gpt3-2.7b", 2'651'553'280, gpt_count(32, 2560, 2048)},
      {"gpt3-350m", 355'871'744, gpt_count(24, 1024, 2048)},
      {"gpt3-6.7b", 6'658'404'352, gpt_count(32, 4096, 2048)},
      {"gpt3-760m", 760'300'032, gpt_count(24, 1536, 2048)},
      {"llama3-70b", 70'553'706'496, llama_count({80, 8192, 64, 8, 128, 28672, 128256, false, 80})},
      {"llama3-8b", 8'030'261'248, llama_count({32, 4096, 32, 8, 128, 14336, 128256, false, 32})},
      {"llama3.2-1b", 1'235'814'400, llama_count({16, 2048, 32, 8, 64, 8192, 128256, true, 16})},
      {"llama3.2-3b", 3'212'749'824, llama_count({28, 3072, 24, 8, 128, 8192, 128256, true, 28})},
      {"mobilellm-125m", 124'635'456, llama_count({30, 576, 9, 3, 64, 1536, 32000, true, 30})},
      {"mobilellm-125m-ls", 124'635'456, llama_count({30, 576, 9, 3, 64, 1536, 32000, true, 30})},
      {"mobilellm-350m", 345'355'200, llama_count({32, 960, 15, 5, 64, 2560, 32000, true, 32})},
      {"mobillama-0.5b", 534'865'920, llama_count({22, 2048, 32, 32, 64, 5632, 32000, false, 1})},
      {"mobillama-0.8b", 819'315'200, llama_count({22, 2560, 32, 32, 80, 10240, 32000, false, 1})},
      {"phi3-mini-128k", 3'821'079'552, llama_count({32, 3072, 32, 32, 96, 8192, 32064, false, 32})},
      {"phi3-mini-4k", 3'821'079'552, llama_count({32, 3072, 32, 32, 96, 8192, 32064, false, 32})},
      {"qwen3-0.6b", 596'049'920,
       llama_count({28, 1024, 16, 8, 128, 3072, 151936, true, 28, 28, 2 * 1024 + 2 * 128})},
      {"smollm2-135m", 134'515'008, llama_count({30, 576, 9, 3, 64, 1536, 49152, true, 30})},
      {"smollm2-360m", 361'821'120, llama_count({32, 960, 15, 5, 64, 2560, 49152, true, 32})},
      {"stlm-10m", 10'483'584, llama_count({18, 384, 8, 4, 48, 1024, 9984, true, 1, 1})},
      {"stlm-50m", 47'203'328, llama_count({8, 512, 16, 4, 32, 1320, 50257, true, 8})},
      {"tinyllama-1.1b", 1'100'048'384, llama_count({22, 2048, 32, 4, 64, 5632, 32000, false, 22})},
  };
}

int64_t expanded(const char* name) {
  return models::Decoder(preset_spec(name), at::kMeta).parameters().expanded();
}

}  // namespace

TEST(Presets, HaveTheirPublishedParameterCounts) {
  std::vector<std::string> names;
  for (const Published& p : published()) {
    names.push_back(p.name);
    const models::Decoder decoder(preset_spec(p.name), at::kMeta);
    EXPECT_EQ(decoder.parameters().stored(), p.count) << p.name;
    EXPECT_EQ(p.formula, p.count) << p.name;
  }
  EXPECT_THAT(preset_names(), ::testing::UnorderedElementsAreArray(names));
}

// Shared networks and repeated blocks written out, as formats without sharing want them.
TEST(Presets, ExpandToWhatTheyExecute) {
  EXPECT_EQ(expanded("mobillama-0.5b"), 1'261'529'088);
  EXPECT_EQ(expanded("mobillama-0.8b"), 2'470'822'400);
  EXPECT_EQ(expanded("mobilellm-125m-ls"), 230'838'336);
  EXPECT_EQ(expanded("smollm2-135m"), 134'515'008);
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
