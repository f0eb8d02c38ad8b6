// Models small enough to be checked by hand.
#pragma once

#include "core/random.h"
#include "models/decoder.h"
#include "models/family.h"
#include "models/kv_cache.h"
#include "models/weight_map.h"

namespace retort::testing {

// A decoder of two layers with weights large enough for logits that differ.
inline std::unique_ptr<models::Decoder> make_decoder(int64_t vocabulary, int64_t context) {
  models::DecoderSpec spec;
  spec.vocabulary = vocabulary;
  spec.context = context;
  spec.layers = 2;
  spec.width = 32;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.ffn_width = 48;
  auto decoder = std::make_unique<models::Decoder>(spec);
  models::initialise(decoder->parameters(), "normal", 0.3, 11);
  models::IdentityMap identity;
  models::bind_working(decoder->parameters(), identity, at::kFloat);
  return decoder;
}

// A byte-patch model of the same size.
inline std::unique_ptr<models::Model> make_patch_model(int64_t context) {
  models::DecoderSpec spec = models::families().at("spacebyte").defaults;
  spec.context = context, spec.layers = 2, spec.width = 32, spec.heads = 2, spec.kv_heads = 1,
  spec.head_dim = 16, spec.ffn_width = 48;
  spec.patch = models::PatchSpec{.width = 16, .layers = 3, .heads = 2, .ffn_width = 24, .window = 9};
  auto model = models::make_model(spec);
  models::initialise(model->parameters(), "normal", 0.3, 7);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

// Hidden states looked up by token: no arithmetic, so no shape can change a bit of them.
class LookupModel final : public models::Model {
 public:
  LookupModel(int64_t vocabulary, int64_t context) : context_(context) {
    spec_.vocabulary = vocabulary;
    table_VD_ = at::empty({vocabulary, 16});
    weight_VD_ = at::empty({vocabulary, 16});
    Random(1, "test/table").fill_normal(table_VD_, 1.0);
    Random(1, "test/weight").fill_normal(weight_VD_, 1.0);
  }
  at::Tensor hidden(const models::TokenBlock& block, models::KvCache*) override {
    return table_VD_.index({block.tokens_BT});
  }
  std::unique_ptr<models::KvCache> make_cache(int64_t batch, int64_t capacity) const override {
    return std::make_unique<models::KvCache>(1, batch, 1, 1, capacity);
  }
  const models::DecoderSpec& spec() const override { return spec_; }
  void set_tokens(int64_t ids) override { spec_.set_tokens(ids); }
  models::Head head() const override { return {weight_VD_.narrow(0, 0, spec_.columns()), softcap}; }
  models::Parameters& parameters() override { return parameters_; }
  const models::Parameters& parameters() const override { return parameters_; }
  int64_t vocabulary() const override { return table_VD_.size(0); }
  int64_t context() const override { return context_; }
  int64_t width() const override { return 16; }
  double flops_per_token(int64_t) const override { return 0.0; }

  double softcap = 0.0;

 private:
  models::DecoderSpec spec_;
  int64_t context_;
  at::Tensor table_VD_, weight_VD_;
  models::Parameters parameters_;
};

}  // namespace retort::testing
