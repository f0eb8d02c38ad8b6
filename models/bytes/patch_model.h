// What byte-patch models have in common: tokens are bytes (or bytes and a stop), a core transformer of the
// spec's own sizes runs once a patch, and byte layers of the sizes of spec.patch around it. Each token is
// predicted from those before it alone, one row of h_BTD a token, so training, distillation, evaluation and
// generation are those of any model, and bits per byte are exact.
//
// Generation keeps the tokens and recomputes all of them for every new one: patches move no keys. FLOPs
// are counted at kBytesPerPatch. Rank and thread rule: the model's.
#pragma once

#include "models/bytes/patches.h"
#include "models/layers.h"
#include "models/model.h"

namespace retort::models {

class PatchModel : public Model {
 public:
  PatchModel(DecoderSpec spec, at::Device device);
  const DecoderSpec& spec() const final { return spec_; }
  at::Tensor hidden(const TokenBlock& block, KvCache* cache = nullptr) final;
  std::unique_ptr<KvCache> make_cache(int64_t batch, int64_t capacity) const final;
  void set_tokens(int64_t ids) final { spec_.set_tokens(ids); }
  Head head() const final { return head_of(*head_, spec_, parameters_.adapter("lm_head.weight")); }
  Parameters& parameters() final { return parameters_; }
  const Parameters& parameters() const final { return parameters_; }
  int64_t vocabulary() const final { return spec_.vocabulary; }
  int64_t context() const final { return spec_.context; }
  int64_t width() const final { return spec_.patch->width; }
  double flops_per_token(int64_t tokens) const final;

 protected:
  // The block with its positions; documents may be undefined.
  virtual at::Tensor run(const TokenBlock& block) = 0;
  // How often a matrix runs for a token of the text.
  virtual double runs(const Parameter& p) const = 0;
  // Keys that queries meet for a token, times heads and head_dim, over all layers.
  virtual double attended(int64_t tokens) const = 0;

  DecoderSpec core_spec() const;                // the spec's own sizes
  DecoderSpec byte_spec(int64_t layers) const;  // spec.patch's sizes, nothing shared
  void declare_embedding();                     // embed.weight
  void declare_head();                          // lm_head.weight; after all else
  at::Tensor embedded(const at::Tensor& ids) const {
    return look_up(*embed_, ids, parameters_.adapter("embed.weight"));
  }

  DecoderSpec spec_;
  Parameters parameters_;
  const Parameter* embed_ = nullptr;
  const Parameter* head_ = nullptr;
};

// ConfigError naming the key; for the families' rows.
void check_patch_spec(const DecoderSpec& spec);

}  // namespace retort::models
