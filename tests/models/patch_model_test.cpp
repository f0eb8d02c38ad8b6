// SpaceByte and STLM: that a prediction knows what is before it and nothing else, exact gradients, published
// counts. Every test runs over all of them.
#include "models/bytes/patch_model.h"

#include "core/error.h"
#include "core/random.h"
#include "kernels/linear_loss.h"
#include "models/family.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::relative_error;
using testing::same_bits;

DecoderSpec spacebyte() {
  DecoderSpec s = families().at("spacebyte").defaults;
  s.context = 64, s.layers = 2, s.width = 32, s.heads = 2, s.kv_heads = 1, s.head_dim = 16, s.ffn_width = 48;
  s.patch = PatchSpec{.width = 16, .layers = 3, .heads = 2, .ffn_width = 24, .window = 9};
  return s;
}

DecoderSpec stlm(int64_t vocabulary, bool parallel) {
  DecoderSpec s = families().at("stlm").defaults;
  s.vocabulary = vocabulary;
  s.context = 64, s.layers = 2, s.width = 32, s.heads = 2, s.kv_heads = 1, s.head_dim = 16, s.ffn_width = 48;
  s.patch =
      PatchSpec{.width = 16, .layers = 2, .heads = 2, .ffn_width = 24, .longest = 5, .parallel = parallel};
  s.tie_embeddings = parallel;
  return s;
}

std::vector<DecoderSpec> all() { return {spacebyte(), stlm(256, false), stlm(257, false), stlm(257, true)}; }

std::unique_ptr<Model> make(const DecoderSpec& spec) {
  auto model = make_model(spec);
  initialise(model->parameters(), "normal", 0.3, 7);
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

// Words of several lengths, with stops after them where the vocabulary has them.
at::Tensor text(const DecoderSpec& spec, int64_t rows = 2, int64_t tokens = 40) {
  std::vector<int64_t> ids;
  const Random random(3, "patch text");
  for (uint64_t i = 0; std::ssize(ids) < rows * tokens; ++i) {
    const int64_t length = 1 + static_cast<int64_t>(random.below(2 * i, 7));
    for (int64_t k = 0; k < length; ++k) ids.push_back('a' + (static_cast<int64_t>(i) * 5 + k * 3) % 26);
    ids.push_back(' ');
    if (spec.vocabulary > 256 && length + 1 < spec.patch->longest) ids.push_back(kStopToken);
  }
  ids.resize(static_cast<size_t>(rows * tokens));
  return at::tensor(ids, at::kLong).view({rows, tokens});
}

// A byte is embedded in several places, so there is no one place for its noise.
TEST(PatchModel, RefusesNoise) {
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    TokenBlock block{text(spec)};
    block.noise_BTD = at::zeros({2, 40, model->width()});
    EXPECT_THROW(model->hidden(block), Error) << spec.family;
  }
}

TEST(PatchModel, NoPredictionSeesTheTokenItPredicts) {
  const at::NoGradGuard no_grad;
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    const at::Tensor tokens = text(spec, 1);
    const at::Tensor before = model->hidden({tokens});
    for (int64_t t = 1; t < tokens.size(1); ++t)
      for (const int64_t other : {int64_t{'Q'}, int64_t{' '}, spec.vocabulary - 1}) {
        at::Tensor changed = tokens.clone();
        changed[0][t] = other;
        const at::Tensor after = model->hidden({changed});
        EXPECT_LT(relative_error(after.narrow(1, 0, t), before.narrow(1, 0, t)), 1e-5)
            << spec.family << " at " << t;
      }
  }
}

TEST(PatchModel, EveryPredictionButTheParallelHeadsSeesTheTokenBefore) {
  const at::NoGradGuard no_grad;
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    at::Tensor tokens = text(spec, 1, 12);
    tokens.narrow(1, 4, 3).copy_(at::tensor({'x', 'y', 'z'}, at::kLong));
    const at::Tensor before = model->hidden({tokens});
    at::Tensor changed = tokens.clone();
    changed[0][5] = 'k';  // inside a patch
    const bool differs = relative_error(model->hidden({changed})[0][5], before[0][5]) > 1e-3;
    EXPECT_EQ(differs, !spec.patch->parallel) << spec.family;
  }
}

// What was read long ago reaches a prediction through the core: no byte layer looks that far.
TEST(PatchModel, TheCoreCarriesWhatIsFarBefore) {
  const at::NoGradGuard no_grad;
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    const at::Tensor tokens = text(spec, 1);
    at::Tensor changed = tokens.clone();
    changed[0][0] = 'Q';
    EXPECT_GT(relative_error(model->hidden({changed})[0][39], model->hidden({tokens})[0][39]), 1e-4)
        << spec.family;
  }
}

TEST(PatchModel, DocumentsOfARowDoNotSeeEachOther) {
  const at::NoGradGuard no_grad;
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    const at::Tensor tokens = text(spec, 2, 20);
    const at::Tensor row = at::cat({tokens[0], tokens[1]}).unsqueeze(0);
    const at::Tensor positions = at::arange(20).repeat({2}).unsqueeze(0);
    const at::Tensor documents = at::arange(2).repeat_interleave(20).unsqueeze(0);
    const at::Tensor packed = model->hidden({row, positions, documents}).view({2, 20, -1});
    EXPECT_LT(relative_error(packed, model->hidden({tokens})), 1e-5) << spec.family;
  }
}

TEST(PatchModel, ACacheGivesWhatTheWholeSequenceDoes) {
  const at::NoGradGuard no_grad;
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    const at::Tensor tokens = text(spec, 1, 24);
    const auto cache = model->make_cache(1, 24);
    const at::Tensor whole = model->hidden({tokens});
    std::vector<at::Tensor> parts = {model->hidden({tokens.narrow(1, 0, 10)}, cache.get())};
    for (int64_t t = 10; t < 24; ++t) parts.push_back(model->hidden({tokens.narrow(1, t, 1)}, cache.get()));
    EXPECT_LT(relative_error(at::cat(parts, 1), whole), 1e-5) << spec.family;
    EXPECT_EQ(cache->length(), 24);
  }
}

double loss_of(Model& model, const at::Tensor& tokens_BT, bool backward) {
  const Head head = model.head();
  const int64_t T = tokens_BT.size(1) - 1;
  const at::Tensor loss =
      kernels::linear_cross_entropy(model.hidden({tokens_BT.narrow(1, 0, T).contiguous()}).flatten(0, 1),
                                    head.weight_VD, tokens_BT.narrow(1, 1, T).flatten());
  if (backward) loss.backward();
  return loss.item<double>();
}

// Along its own gradient a loss changes by the gradient's length; f32 sums of some 80 rows leave 1e-3 of it.
TEST(PatchModel, GradientsAreThoseOfTheLoss) {
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    const at::Tensor tokens = text(spec);
    loss_of(*model, tokens, true);
    const at::NoGradGuard no_grad;
    for (const Parameter& p : model->parameters().unique()) {
      const at::Tensor gradient = p.working.grad().clone();
      const double length = gradient.norm().item<double>();
      ASSERT_GT(length, 0.0) << spec.family << " " << p.name;
      const double step = 0.2 / length;  // the loss moves by some .4 nats
      const at::Tensor saved = p.working.clone();
      const auto moved = [&](double by) {
        at::Tensor working = p.working;
        working.copy_(saved + by * gradient / length);
        return loss_of(*model, tokens, false);
      };
      const double slope = (moved(step) - moved(-step)) / (2 * step);
      moved(0.0);
      EXPECT_NEAR(slope / length, 1.0, 0.02) << spec.family << " " << p.name;
    }
  }
}

TEST(PatchModel, EveryParameterGetsAGradientWithoutAnyPatch) {
  for (const DecoderSpec& spec : all()) {
    const auto model = make(spec);
    loss_of(*model, at::full({1, 4}, 'a', at::kLong), true);
    for (const Parameter& p : model->parameters().unique())
      EXPECT_TRUE(p.working.grad().defined()) << spec.family << " " << p.name;
  }
}

// https://github.com/LeonGuertler/SuperTinyLanguageModels, byte_level.yaml: 258 ids, of which ours leaves 257
// out.
TEST(PatchModel, HasThePublishedStlmsParameters) {
  DecoderSpec s = families().at("stlm").defaults;
  s.vocabulary = 258;
  s.layers = 10, s.width = 768, s.heads = 16, s.kv_heads = 4, s.head_dim = 48, s.ffn_width = 1536;
  s.patch =
      PatchSpec{.width = 128, .layers = 7, .heads = 8, .ffn_width = 512, .longest = 12, .parallel = true};
  s.tie_embeddings = false;
  const auto model = make_model(s, at::kMeta);
  EXPECT_EQ(model->parameters().stored(), 55'924'736);
  int64_t core = 0;
  for (const Parameter& p : model->parameters().unique())
    if (p.name.starts_with("core.")) core += p.numel();
  EXPECT_EQ(core, 50'150'400);
}

TEST(PatchModel, CountsTheCoreOnceAPatch) {
  DecoderSpec small = spacebyte(), large = spacebyte();
  large.layers *= 2;
  const auto a = make_model(small, at::kMeta), b = make_model(large, at::kMeta);
  const double matrices = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48;  // of a core layer
  EXPECT_NEAR(b->flops_per_token(40) - a->flops_per_token(40),
              2 * (6 * matrices + 12 * 32 * 40 / kBytesPerPatch) / kBytesPerPatch, 1e-6);
}

TEST(PatchModel, RefusesShapesThatDoNotFit) {
  const auto refused = [](DecoderSpec spec, auto change) {
    change(spec);
    EXPECT_THROW(make_model(spec, at::kMeta), ConfigError) << spec.family;
  };
  refused(spacebyte(), [](DecoderSpec& s) { s.patch.reset(); });
  refused(spacebyte(), [](DecoderSpec& s) { s.patch->width = 64; });
  refused(spacebyte(), [](DecoderSpec& s) { s.patch->heads = 3; });
  refused(spacebyte(), [](DecoderSpec& s) { s.vocabulary = 257; });
  refused(spacebyte(), [](DecoderSpec& s) { s.patch->longest = 4; });
  refused(stlm(256, false), [](DecoderSpec& s) { s.patch->parallel = true; });
  refused(stlm(256, false), [](DecoderSpec& s) { s.patch->longest = 1; });
  refused(families().at("llama").defaults, [](DecoderSpec& s) { s.patch = PatchSpec{}; });
  EXPECT_THROW(Decoder(spacebyte(), at::kMeta), ConfigError);
  const auto model = make(spacebyte());
  EXPECT_THROW(model->hidden({at::zeros({1, 65}, at::kLong)}), DataError);
  EXPECT_THROW(model->hidden({at::full({1, 5}, 256, at::kLong)}), DataError);
}

}  // namespace
}  // namespace retort::models
