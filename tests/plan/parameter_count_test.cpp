#include "plan/parameter_count.h"

#include <gtest/gtest.h>

#include "models/adapters.h"
#include "models/frozen_codes.h"
#include "quantize/quantize_map.h"
#include "tests/plan/shapes.h"
#include "tests/process_memory.h"

namespace retort::plan {
namespace {

using models::Parameter;
using models::Parameters;

// By the elements that tensors really have.
ParameterCount counted_by_tensors(const Parameters& built) {
  ParameterCount out;
  for (const Parameter& p : built.unique()) {
    const bool matrix = p.role == models::Role::kMatrix || p.role == models::Role::kEmbedding ||
                        p.role == models::Role::kHead;
    int64_t& kind = p.frozen ? (matrix ? out.frozen_matrices : out.frozen_f32)
                             : (matrix ? out.trained_matrices : out.trained_f32);
    kind += p.codes ? p.codes->values().numel() : p.master.numel();
    if (p.codes) out.code_bytes += static_cast<double>(p.codes->bytes());
  }
  return out;
}

void expect_equal(const ParameterCount& planned, const ParameterCount& built) {
  EXPECT_EQ(planned.trained_matrices, built.trained_matrices);
  EXPECT_EQ(planned.trained_f32, built.trained_f32);
  EXPECT_EQ(planned.frozen_matrices, built.frozen_matrices);
  EXPECT_EQ(planned.frozen_f32, built.frozen_f32);
}

}  // namespace

TEST(CountParameters, IsThatOfTheBuiltModelForEveryFamily) {
  for (const models::Family& family : models::families()) {
    SCOPED_TRACE(family.name);
    const auto built = models::make_model(family.defaults);
    const ParameterCount planned = count_parameters(shape(family.defaults)->parameters());
    expect_equal(planned, counted_by_tensors(built->parameters()));
    EXPECT_EQ(planned.frozen(), 0);
    EXPECT_EQ(planned.trained(), planned.stored);
  }
}

TEST(CountParameters, OfWhatIsSharedOnce) {
  models::DecoderSpec spec{.layers = 6, .tie_embeddings = false};
  const ParameterCount whole = count_parameters(shape(spec)->parameters());
  EXPECT_EQ(whole.stored, whole.expanded);
  for (const auto& change : {+[](models::DecoderSpec& s) { s.tie_embeddings = true; },
                             +[](models::DecoderSpec& s) { s.share_ffn = s.share_output = true; },
                             +[](models::DecoderSpec& s) { s.share_ffn = true, s.lora_rank = 4; },
                             +[](models::DecoderSpec& s) { s.repeat = 2; }}) {
    models::DecoderSpec shared = spec;
    change(shared);
    const ParameterCount planned = count_parameters(shape(shared)->parameters());
    expect_equal(planned, counted_by_tensors(models::make_model(shared)->parameters()));
    EXPECT_LT(planned.stored, whole.stored);
  }
}

TEST(CountParameters, TellsTrainedFromFrozen) {
  const models::DecoderSpec spec{.layers = 2};
  for (const std::string& base : models::frozen_code_names()) {
    SCOPED_TRACE(base);
    models::AdapterOptions options;
    options.base = base;
    auto model = models::make_model(spec);
    for (Parameter& p : model->parameters().unique()) p.master.normal_();
    const auto built = models::adapt(std::move(model), options, 1);
    const ParameterCount real = counted_by_tensors(built->parameters()),
                         planned =
                             count_parameters(models::adapt(shape(spec), options, 0)->parameters(), base);
    expect_equal(planned, real);
    EXPECT_GT(planned.frozen(), planned.trained());
    EXPECT_GT(planned.trained(), 0);
    EXPECT_NEAR(planned.code_bytes, real.code_bytes, 0.02 * real.code_bytes);
    EXPECT_EQ(planned.coded > 0, base != "f32");
  }
}

TEST(CountParameters, LearnedScalesAreTrainedAndNotStored) {
  const auto model = shape({.layers = 1});
  const int64_t before = count_parameters(model->parameters()).trained();
  quantize::QuantizeOptions grids;
  grids.weights.grid = "lsq4";
  grids.fallback = "none";
  const quantize::QuantizeMap map(grids, model->parameters());
  const ParameterCount after = count_parameters(model->parameters());
  EXPECT_EQ(after.stored, before);
  EXPECT_GT(after.trained(), before);
}

// Published counts: Llama 3's, and those of llm-foundry's table of 29 November 2023.
TEST(CountParameters, PublishedCounts) {
  EXPECT_EQ(count_parameters(shape(llama3_8b())->parameters()).stored, 8'030'261'248);
  EXPECT_EQ(count_parameters(shape(llama3_70b())->parameters()).stored, 70'553'706'496);
  EXPECT_EQ(count_parameters(shape(llama3_405b())->parameters()).stored, 405'853'388'800);
  EXPECT_EQ(count_parameters(shape(gpt(32, 4096, 32, 50368, 2048))->parameters()).stored, 6'658'859'008);
  EXPECT_EQ(count_parameters(shape(gpt(80, 8192, 64, 50368, 2048))->parameters()).stored, 64'862'437'376);
}

TEST(CountParameters, AllocatesNoWeights) {
  RETORT_NEEDS_COUNTED_MEMORY();
  const int64_t growth = testing::peak_growth(
      [] { EXPECT_GT(count_parameters(shape(llama3_405b())->parameters()).stored, 405'000'000'000); });
  EXPECT_LT(growth, 64 * testing::kMiB);
}

TEST(CodeBytes, UnknownFormsAreRefused) { EXPECT_THROW(code_bytes("q5_5", 1), ConfigError); }

}  // namespace retort::plan
