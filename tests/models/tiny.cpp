#include "tests/models/tiny.h"

#include "core/random.h"
#include "models/family.h"
#include "models/kv_cache.h"

namespace retort::testing {

using models::Decoder;
using models::DecoderSpec;

DecoderSpec tiny_llama() {
  return {.family = "llama",
          .vocabulary = 96,
          .context = 64,
          .layers = 2,
          .width = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn_width = 48,
          .tie_embeddings = false};
}

DecoderSpec tiny_gpt2() {
  DecoderSpec spec{.family = "gpt2",
                   .vocabulary = 96,
                   .context = 64,
                   .layers = 2,
                   .width = 32,
                   .heads = 4,
                   .kv_heads = 4,
                   .head_dim = 8,
                   .ffn_width = 128};
  spec.norm = models::NormKind::kLayer;
  spec.ffn = models::FfnKind::kGelu;
  spec.positions = models::PositionKind::kLearned;
  spec.attention_bias = spec.ffn_bias = true;
  return spec;
}

DecoderSpec tiny_bitnet() {
  DecoderSpec spec = tiny_llama();
  spec.family = "bitnet";
  spec.ffn = models::FfnKind::kRelu2glu;
  spec.sub_norms = spec.tie_embeddings = true;
  return spec;
}

std::vector<DecoderSpec> tiny_families() {
  std::vector<DecoderSpec> specs;
  for (const models::Family& family : models::families()) {
    if (family.make) continue;  // no plain decoder
    DecoderSpec s = family.defaults;
    s.vocabulary = 96;
    s.context = 64;
    s.layers = 3;
    s.width = 32;
    s.heads = 4;
    s.kv_heads = s.norm == models::NormKind::kLayer ? 4 : 2;
    s.head_dim = s.qk_norm ? 16 : 8;  // free of the width where the architecture allows it
    s.ffn_width = 64;
    if (s.window > 0) s.window = 8;
    if (s.global_every > 0) s.global_every = 3;
    specs.push_back(s);
    if (s.family == "bitnet") {
      s.ffn = models::FfnKind::kSwiglu;
      specs.push_back(s);
    }
    if (s.family != "phi3") continue;
    s.window = 12;
    s.rope_scaling.kind = "longrope";
    s.rope_scaling.factor = 4.0;
    s.rope_scaling.original_context = 16;
    s.rope_scaling.short_factor = {1.0, 1.02, 1.04, 1.1};
    s.rope_scaling.long_factor = {1.0, 1.5, 2.3, 9.7};
    specs.push_back(s);
  }
  return specs;
}

std::vector<DecoderSpec> tiny_gguf_families() {
  std::vector<DecoderSpec> specs = tiny_families();
  std::erase_if(specs, [](const DecoderSpec& s) { return s.ffn == models::FfnKind::kRelu2glu; });
  return specs;
}

std::unique_ptr<Decoder> random_model(const DecoderSpec& spec, uint64_t seed) {
  auto model = std::make_unique<Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.08, seed);
  const at::NoGradGuard no_grad;
  for (models::Parameter& p : model->parameters().unique()) {
    if (p.master.dim() != 1) continue;
    at::Tensor noise = at::empty_like(p.master);
    Random(seed, "test/" + p.name).fill_normal(noise, 0.2);
    p.master.add_(noise);
  }
  return model;
}

at::Tensor random_tokens(int64_t batch, int64_t tokens, int64_t vocabulary, uint64_t seed) {
  at::Tensor out = at::empty({batch, tokens}, at::kLong);
  const Random random(seed, "test/tokens");
  for (int64_t i = 0; i < out.numel(); ++i)
    out.mutable_data_ptr<int64_t>()[i] =
        static_cast<int64_t>(random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(vocabulary)));
  return out;
}

at::Tensor logits(models::Model& model, const models::TokenBlock& block) {
  const at::Tensor h_BTD = model.hidden(block);
  return at::matmul(h_BTD, model.head().weight_VD.to(at::kFloat).t());
}

at::Tensor next_token_loss(models::Model& model, const at::Tensor& tokens_BT) {
  const int64_t T = tokens_BT.size(1);
  const at::Tensor all_BTV = logits(model, {tokens_BT, {}, {}});
  return at::cross_entropy_loss(all_BTV.narrow(1, 0, T - 1).flatten(0, 1),
                                tokens_BT.narrow(1, 1, T - 1).reshape({-1}));
}

std::vector<int64_t> continue_greedily(Decoder& model, std::vector<int64_t> tokens, int64_t count) {
  const at::NoGradGuard no_grad;
  const DecoderSpec& s = model.spec();
  models::KvCache cache(s.layers, 1, s.kv_heads, s.head_dim, std::ssize(tokens) + count);
  at::Tensor next_BT = at::tensor(tokens).unsqueeze(0);
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor h_D = model.hidden({next_BT, {}, {}}, &cache)[0][-1];
    tokens.push_back(at::mv(model.head().weight_VD, h_D).argmax().item<int64_t>());
    next_BT = at::tensor({tokens.back()}).unsqueeze(0);
  }
  return tokens;
}

}  // namespace retort::testing
