#include "models/decoder.h"

#include "core/error.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "models/model.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::relative_error;

// A model without sharing whose tensors equal the shared one's.
std::unique_ptr<Decoder> unshared_copy(const Decoder& shared) {
  DecoderSpec spec = shared.spec();
  spec.share_ffn = spec.share_output = spec.tie_embeddings = false;
  spec.keep_first = spec.keep_last = 0;
  spec.repeat = 1;
  auto out = std::make_unique<Decoder>(spec);
  for (Parameter& p : out->parameters().unique()) p.master.copy_(shared.parameters().at(p.name).master);
  return out;
}

void expect_sharing_is_a_sum(const DecoderSpec& spec) {
  const auto shared = testing::random_model(spec);
  const auto copy = unshared_copy(*shared);
  const at::Tensor tokens = testing::random_tokens(2, 9, spec.vocabulary);
  const at::Tensor loss = testing::next_token_loss(*shared, tokens),
                   copied = testing::next_token_loss(*copy, tokens);
  EXPECT_TRUE(testing::same_bits(loss, copied));
  loss.backward();
  copied.backward();
  for (const Parameter& p : shared->parameters().unique()) {
    at::Tensor sum = at::zeros_like(p.master, at::kDouble);
    for (const std::string& use : p.uses) sum += copy->parameters().at(use).working.grad();
    // f32 sums of the uses in another order
    EXPECT_LT(relative_error(p.working.grad(), sum), 1e-5) << p.name;
  }
  EXPECT_EQ(copy->parameters().stored() - (spec.tie_embeddings ? spec.vocabulary * spec.width : 0),
            shared->parameters().expanded());
}

TEST(Decoder, LayersOneByOneMakeTheHiddenStates) {
  const at::NoGradGuard no_grad;
  for (DecoderSpec spec : testing::tiny_families()) {
    spec.layers = 4;
    spec.repeat = 2;
    const auto model = testing::random_model(spec);
    const TokenBlock block{testing::random_tokens(2, 20, spec.vocabulary), {}, {}};
    at::Tensor x_BTD = model->embed(block);
    for (int64_t n = 0; n < spec.layers; ++n) x_BTD = model->run_layer(n, x_BTD, block);
    const at::Tensor w = model->parameters().at("final_norm.weight").working;
    const at::Tensor h_BTD =
        spec.norm == NormKind::kLayer
            ? kernels::layer_norm(x_BTD, w, model->parameters().at("final_norm.bias").working, spec.norm_eps)
            : kernels::rms_norm(x_BTD, w, spec.norm_eps, spec.norm == NormKind::kRmsUnitOffset);
    EXPECT_TRUE(testing::same_bits(h_BTD, model->hidden(block))) << spec.family;
    EXPECT_THROW(model->run_layer(4, x_BTD, block), InternalError);
  }
}

TEST(Decoder, TapsHoldWhatTheirLayersHeld) {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 3;
  const auto model = testing::random_model(spec);
  const at::Tensor tokens = testing::random_tokens(2, 9, spec.vocabulary);
  std::vector<LayerTap> taps = {{.layer = 2}, {.layer = 0}};
  const TokenBlock plain{tokens, {}, {}}, tapped{tokens, {}, {}, &taps};
  EXPECT_TRUE(testing::same_bits(model->hidden(tapped), model->hidden(plain)));
  EXPECT_EQ(model->layers(), 3);

  at::Tensor x_BTD = model->embed(plain);
  const at::Tensor first_BTD = model->run_layer(0, x_BTD, plain);
  EXPECT_TRUE(testing::same_bits(taps[1].h_BTD, first_BTD));
  const at::Tensor last_BTD = model->run_layer(2, model->run_layer(1, first_BTD, plain), plain);
  EXPECT_TRUE(testing::same_bits(taps[0].h_BTD, last_BTD));
  const auto weight = [&](const char* name) { return model->parameters().at(name).working; };
  const at::Tensor h_BTD = kernels::rms_norm(x_BTD, weight("layers.0.attn_norm.weight"), spec.norm_eps);
  const auto product = [&](const char* name, int64_t heads) {
    return at::linear(h_BTD, weight(name)).view({2, 9, heads, spec.head_dim});
  };
  EXPECT_LT(relative_error(taps[1].q_BTHK, product("layers.0.attn.q.weight", spec.heads)), 1e-5);
  EXPECT_LT(relative_error(taps[1].k_BTGK, product("layers.0.attn.k.weight", spec.kv_heads)), 1e-5);
  EXPECT_LT(relative_error(taps[1].v_BTGK, product("layers.0.attn.v.weight", spec.kv_heads)), 1e-5);

  taps[1].h_BTD.sum().backward();
  EXPECT_GT(weight("embed.weight").grad().abs().max().item<double>(), 0.0);
  EXPECT_FALSE(weight("layers.1.attn.q.weight").grad().defined()) << "a later layer has no part in it";
  taps.push_back({.layer = 3});
  EXPECT_THROW(model->hidden(tapped), InternalError);
}

TEST(Decoder, SharedTensorsSumTheGradientsOfTheirUses) {
  DecoderSpec ffn = testing::tiny_llama();
  ffn.layers = 4;
  ffn.tie_embeddings = ffn.share_ffn = true;
  expect_sharing_is_a_sum(ffn);

  DecoderSpec repeated = testing::tiny_gpt2();
  repeated.layers = 6;
  repeated.repeat = 3;
  expect_sharing_is_a_sum(repeated);

  DecoderSpec both = testing::tiny_llama();
  both.layers = 4;
  both.repeat = 2;
  both.share_ffn = true;
  expect_sharing_is_a_sum(both);

  DecoderSpec interior = testing::tiny_llama();
  interior.layers = 6;
  interior.share_ffn = interior.share_output = true;
  interior.keep_first = 2;
  interior.keep_last = 1;
  expect_sharing_is_a_sum(interior);
  interior.layers = 8;
  interior.repeat = interior.keep_last = 2;
  expect_sharing_is_a_sum(interior);
}

TEST(Decoder, RepeatRunsEachBlockInARow) {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 4;
  spec.repeat = 2;
  const Decoder model(spec, at::kMeta);
  const Parameters& p = model.parameters();
  EXPECT_EQ(&p.at("layers.1.attn.q.weight"), &p.at("layers.0.attn.q.weight"));
  EXPECT_EQ(&p.at("layers.3.attn_norm.weight"), &p.at("layers.2.attn_norm.weight"));
  EXPECT_NE(&p.at("layers.2.attn.q.weight"), &p.at("layers.0.attn.q.weight"));
}

TEST(Decoder, ASharedFfnLeavesNormsAndAttentionToTheirLayers) {
  DecoderSpec spec = testing::tiny_llama();
  spec.share_ffn = true;
  const Decoder model(spec, at::kMeta);
  const Parameters& p = model.parameters();
  for (const char* name : {"ffn.gate.weight", "ffn.up.weight", "ffn.down.weight"})
    EXPECT_EQ(&p.at(fmt::format("layers.1.{}", name)), &p.at(fmt::format("layers.0.{}", name)));
  for (const char* name : {"ffn_norm.weight", "attn_norm.weight", "attn.v.weight"})
    EXPECT_NE(&p.at(fmt::format("layers.1.{}", name)), &p.at(fmt::format("layers.0.{}", name)));
}

// Central differences in one direction, through sharing; f32 noise bounds what they can tell.
TEST(Decoder, GradientAgreesWithFiniteDifferences) {
  for (DecoderSpec spec : {testing::tiny_llama(), testing::tiny_gpt2(), testing::tiny_bitnet()}) {
    spec.tie_embeddings = spec.share_ffn = true;
    const auto model = testing::random_model(spec);
    const at::Tensor tokens = testing::random_tokens(2, 9, spec.vocabulary);
    testing::next_token_loss(*model, tokens).backward();
    const at::NoGradGuard no_grad;
    std::vector<std::string> names = {"embed.weight", "layers.0.ffn.down.weight", "layers.1.attn.k.weight"};
    if (spec.sub_norms)
      names.insert(names.end(), {"layers.1.attn.sub_norm.weight", "layers.0.ffn.sub_norm.weight"});
    for (const std::string& name : names) {
      Parameter& p = model->parameters().at(name);
      const at::Tensor direction = p.working.grad() / p.working.grad().norm(), start = p.master.clone();
      const double step = 1e-2, slope = p.working.grad().norm().item<double>();
      p.master.copy_(start + step * direction);
      const double high = testing::next_token_loss(*model, tokens).item<double>();
      p.master.copy_(start - step * direction);
      const double low = testing::next_token_loss(*model, tokens).item<double>();
      p.master.copy_(start);
      EXPECT_NEAR((high - low) / (2 * step) / slope, 1.0, 2e-2) << name;
    }
  }
}

// BitNet's formula for one sequence, by LibTorch's operations alone.
at::Tensor plain_bitnet(const std::map<std::string, at::Tensor>& w, const DecoderSpec& s,
                        const at::Tensor& tokens_T) {
  const int64_t T = tokens_T.numel(), K = s.head_dim, group = s.heads / s.kv_heads;
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    return x * at::rsqrt(x.square().mean(-1, true) + s.norm_eps) * w.at(name + ".weight");
  };
  const at::Tensor half_TK =
      at::outer(at::arange(T, at::kDouble), kernels::rope_frequencies(K, s.rope_theta, {}));
  const at::Tensor angle_T1K = at::cat({half_TK, half_TK}, 1).unsqueeze(1);
  const auto rotated = [&](const at::Tensor& x) {
    const at::Tensor turned = at::cat({-x.narrow(2, K / 2, K / 2), x.narrow(2, 0, K / 2)}, 2);
    return x * angle_T1K.cos() + turned * angle_T1K.sin();
  };
  const at::Tensor later_TS = at::ones({T, T}, at::kBool).triu(1);
  at::Tensor x_TD = w.at("embed.weight").index_select(0, tokens_T);
  for (int64_t n = 0; n < s.layers; ++n) {
    const std::string layer = fmt::format("layers.{}.", n);
    const auto product = [&](const at::Tensor& x, const std::string& name) {
      return at::matmul(x, w.at(layer + name + ".weight").t());
    };
    const at::Tensor h_TD = norm(x_TD, layer + "attn_norm");
    const at::Tensor q = rotated(product(h_TD, "attn.q").view({T, s.heads, K}));
    const at::Tensor k =
        rotated(product(h_TD, "attn.k").view({T, s.kv_heads, K})).repeat_interleave(group, 1);
    const at::Tensor v = product(h_TD, "attn.v").view({T, s.kv_heads, K}).repeat_interleave(group, 1);
    const at::Tensor scores_HTS = at::einsum("thk,shk->hts", {q, k}) / std::sqrt(static_cast<double>(K));
    const at::Tensor seen_HTS = at::softmax(scores_HTS.masked_fill(later_TS, -INFINITY), -1);
    const at::Tensor y_TQ = at::einsum("hts,shk->thk", {seen_HTS, v}).reshape({T, s.heads * K});
    x_TD = x_TD + product(norm(y_TQ, layer + "attn.sub_norm"), "attn.o");
    const at::Tensor g_TD = norm(x_TD, layer + "ffn_norm");
    const at::Tensor a_TF = at::relu(product(g_TD, "ffn.gate")).square() * product(g_TD, "ffn.up");
    x_TD = x_TD + product(norm(a_TF, layer + "ffn.sub_norm"), "ffn.down");
  }
  return at::matmul(norm(x_TD, "final_norm"), w.at("embed.weight").t());
}

TEST(Decoder, BitnetAgreesWithItsFormulaInF64) {
  const DecoderSpec spec = testing::tiny_bitnet();
  const auto model = testing::random_model(spec);
  const at::Tensor tokens = testing::random_tokens(1, 11, spec.vocabulary);
  std::map<std::string, at::Tensor> exact;
  for (const Parameter& p : model->parameters().unique())
    exact[p.name] = p.master.to(at::kDouble).requires_grad_(true);
  const at::Tensor logits_TV = plain_bitnet(exact, spec, tokens[0]);
  EXPECT_LT(relative_error(testing::logits(*model, {tokens, {}, {}})[0], logits_TV), 1e-5);
  testing::next_token_loss(*model, tokens).backward();
  at::cross_entropy_loss(logits_TV.narrow(0, 0, 10), tokens[0].narrow(0, 1, 10)).backward();
  for (const Parameter& p : model->parameters().unique())
    EXPECT_LT(relative_error(p.working.grad(), exact.at(p.name).grad()), 1e-4) << p.name;
}

// The norm inside the network is the network's and shared with it; attention's belongs to its layer.
TEST(Decoder, SubNormsGoWithWhatTheyStandIn) {
  DecoderSpec spec = testing::tiny_bitnet();
  spec.share_ffn = spec.share_output = true;
  const Decoder model(spec, at::kMeta);
  const Parameters& p = model.parameters();
  EXPECT_EQ(&p.at("layers.1.ffn.sub_norm.weight"), &p.at("layers.0.ffn.sub_norm.weight"));
  EXPECT_NE(&p.at("layers.1.attn.sub_norm.weight"), &p.at("layers.0.attn.sub_norm.weight"));
  for (const char* name : {"layers.0.ffn.sub_norm.weight", "layers.1.attn.sub_norm.weight"})
    EXPECT_EQ(p.at(name).role, Role::kNorm) << "neither decayed nor on a grid: " << name;
  EXPECT_EQ(p.at("layers.0.ffn.sub_norm.weight").numel(), spec.ffn_width);
  EXPECT_EQ(p.at("layers.0.attn.sub_norm.weight").numel(), spec.heads * spec.head_dim);
  expect_sharing_is_a_sum(spec);
}

TEST(Decoder, ExplicitPositionsAndDocumentsSeparateSequences) {
  for (const DecoderSpec& spec : {testing::tiny_llama(), testing::tiny_gpt2()}) {
    const auto model = testing::random_model(spec);
    const at::Tensor tokens = testing::random_tokens(1, 10, spec.vocabulary);
    const at::NoGradGuard no_grad;
    const at::Tensor positions = at::cat({at::arange(4), at::arange(6)}).unsqueeze(0);
    const at::Tensor documents = (at::arange(10) >= 4).to(at::kLong).unsqueeze(0);
    const at::Tensor packed = model->hidden({tokens, positions, documents});
    const at::Tensor first = model->hidden({tokens.narrow(1, 0, 4), {}, {}});
    const at::Tensor second = model->hidden({tokens.narrow(1, 4, 6), {}, {}});
    EXPECT_LT(relative_error(packed, at::cat({first, second}, 1)), 1e-5);
    // ... and without the documents the second sees the first
    EXPECT_GT(relative_error(model->hidden({tokens, positions, {}}).narrow(1, 4, 6), second), 1e-2);
  }
}

TEST(Decoder, ReadsItsWorkingWeights) {
  const auto model = testing::random_model(testing::tiny_llama());
  const at::Tensor tokens = testing::random_tokens(2, 9, 96);
  const at::Tensor exact = model->hidden({tokens, {}, {}});
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kBFloat16);
  const at::Tensor narrow = model->hidden({tokens, {}, {}});
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
  EXPECT_GT(relative_error(narrow, exact), 1e-5);
  // two layers of a dozen roundings of 2^-9 each, and amplification below 2
  EXPECT_LT(relative_error(narrow, exact), 2 * 2 * 12 * 0x1p-9);
  testing::next_token_loss(*model, tokens).backward();
  for (const Parameter& p : model->parameters().unique()) {
    EXPECT_EQ(p.working.grad().scalar_type(), p.working.scalar_type()) << p.name;
    EXPECT_FALSE(p.master.grad().defined()) << p.name;
  }
}

TEST(Decoder, RefusesWhatItCannotRead) {
  const auto llama = testing::random_model(testing::tiny_llama());
  const auto tokens = [](int64_t n, int64_t value) {
    return TokenBlock{at::full({1, n}, value, at::kLong), {}, {}};
  };
  EXPECT_THROW(llama->hidden(tokens(3, 96)), DataError);
  EXPECT_THROW(llama->hidden(tokens(3, -100)), DataError);
  EXPECT_THROW(llama->hidden(tokens(65, 1)), DataError);  // context 64
  EXPECT_THROW(llama->hidden({at::zeros({3}, at::kLong), {}, {}}), ShapeError);
  EXPECT_THROW(llama->hidden({at::zeros({1, 3}, at::kLong), at::full({1, 3}, 64, at::kLong), {}}), DataError);
}

TEST(Decoder, FlopsCountWhatRuns) {
  DecoderSpec spec = testing::tiny_llama();  // D 32, q 32, kv 16, F 48, V 96
  spec.layers = 4;
  const int64_t layer = 32 * 32 * 2 + 2 * 16 * 32 + 3 * 48 * 32, head = 96 * 32;
  const double expected = 6.0 * (4 * layer + head) + 12.0 * 4 * 4 * 8 * 50;
  EXPECT_EQ(Decoder(spec, at::kMeta).flops_per_token(50), expected);
  spec.share_ffn = spec.tie_embeddings = true;
  EXPECT_EQ(Decoder(spec, at::kMeta).flops_per_token(50), expected);
  spec.repeat = 2;
  EXPECT_EQ(Decoder(spec, at::kMeta).flops_per_token(50), expected);
  DecoderSpec bitnet = testing::tiny_bitnet();  // norms are not counted
  bitnet.layers = 4;
  EXPECT_EQ(Decoder(bitnet, at::kMeta).flops_per_token(50), expected);
}

struct Count {
  const char* name;
  DecoderSpec spec;
  int64_t stored, expanded;
};

DecoderSpec llama(int64_t layers, int64_t width, int64_t heads, int64_t kv_heads, int64_t ffn,
                  int64_t vocabulary, bool tied) {
  return {.family = "llama",
          .vocabulary = vocabulary,
          .context = 8192,
          .layers = layers,
          .width = width,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = width / heads,
          .ffn_width = ffn,
          .tie_embeddings = tied};
}

DecoderSpec gpt3_175b() {
  DecoderSpec spec = testing::tiny_gpt2();
  spec.vocabulary = 50257;
  spec.context = 2048;
  spec.layers = spec.heads = spec.kv_heads = 96;
  spec.width = 12288;
  spec.head_dim = 128;
  spec.ffn_width = 4 * 12288;
  return spec;
}

// Published sizes, counted without memory.
TEST(Decoder, CountsPresets) {
  DecoderSpec mobillama = llama(22, 2048, 32, 32, 5632, 32000, false);
  mobillama.share_ffn = true;
  DecoderSpec mobilellm_ls = llama(60, 576, 9, 3, 1536, 32000, true);
  mobilellm_ls.repeat = 2;
  const Count counts[] = {
      {"llama3-8b", llama(32, 4096, 32, 8, 14336, 128256, false), 8030261248, 8030261248},
      {"llama3.2-1b", llama(16, 2048, 32, 8, 8192, 128256, true), 1235814400, 1235814400},
      {"tinyllama", llama(22, 2048, 32, 4, 5632, 32000, false), 1100048384, 1100048384},
      {"mobillama-0.5b", mobillama, 534865920, 1261529088},
      {"mobilellm-125m-ls", mobilellm_ls, 124635456, 230838336},
      {"gpt3-175b", gpt3_175b(), 174604259328, 174604259328},
  };
  for (const Count& c : counts) {
    const Decoder model(c.spec, at::kMeta);
    EXPECT_EQ(model.parameters().stored(), c.stored) << c.name;
    EXPECT_EQ(model.parameters().expanded(), c.expanded) << c.name;
  }
}

}  // namespace
}  // namespace retort::models
