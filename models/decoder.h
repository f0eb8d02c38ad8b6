// The one decoder: a pre-norm transformer described by orthogonal choices. A published architecture is a
// translation to a DecoderSpec (models/families/), never a class of its own.
//
//   x = embed[tokens] (* sqrt(D)) (+ positions[p])
//   per layer: x += attn(norm(x)); x += ffn(norm(x)), each sum's new part normalised again with post_norms
//   h = norm(x)
//
// Parameter names: embed.weight, positions.weight, layers.N.attn_norm.{weight,bias},
// layers.N.attn.{q,k,v,o}.{weight,bias}, layers.N.attn.{q,k}_norm.weight, layers.N.attn_post_norm.*,
// layers.N.ffn_norm.*, layers.N.ffn.{gate,up,down}.*, layers.N.ffn_post_norm.*, final_norm.*, lm_head.weight.
// Weights are [out, in]. Sharing is declared as aliases: lm_head -> embed; share_ffn:
// layers.N.ffn.* -> layers.F.ffn.* for the layers F = keep_first to layers - keep_last (share_output: the
// same for layers.N.attn.o.*); repeat r: layer n runs weights of block n / r (all of layers.n.*). lora_rank:
// each layer adds its own layers.N.ffn.{gate,up,down}.{lora_a,lora_b}.weight to the shared network. `layers`
// counts executed layers, so layers 8 with repeat 2 stores 4 blocks. The residual stream, norms and softmax
// are f32; a Linear computes in its weight's dtype.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/rope.h"
#include "models/model.h"

namespace retort::models {

enum class NormKind { kRms, kLayer, kRmsUnitOffset };  // unit offset: times 1 + w, w starting at 0 (Gemma)
enum class FfnKind { kSwiglu, kGelu, kGeglu };         // gelu: up, gelu_tanh, down
enum class PositionKind { kRope, kLearned };

struct DecoderSpec {
  std::string family = "llama";  // models/families/registry: whose names and defaults files use
  int64_t vocabulary = 256;
  int64_t context = 2048;
  int64_t layers = 4;  // executed
  int64_t width = 128;
  int64_t heads = 4;
  int64_t kv_heads = 4;
  int64_t head_dim = 32;
  int64_t ffn_width = 352;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  FfnKind ffn = FfnKind::kSwiglu;
  PositionKind positions = PositionKind::kRope;
  double rope_theta = 10000.0;
  kernels::RopeScaling rope_scaling = {};
  double rope_local_theta = 0.0;  // > 0: base of the layers with a window, which are not scaled
  int64_t window = 0;             // > 0: a query sees this many keys, its own included
  int64_t global_every = 0;       // > 0: every so many-th layer sees all keys (6: layers 5, 11, ...)
  double query_scalar = 0.0;      // scores are q.k / sqrt(query_scalar); 0: head_dim
  bool attention_bias = false;    // q, k, v and o
  bool qkv_bias = false;          // q, k and v
  bool qk_norm = false;           // an RMS norm of each head's q and k, before the rotation
  bool post_norms = false;        // what attention and FFN add is normalised too
  bool ffn_bias = false;
  bool tie_embeddings = true;
  bool scale_embeddings = false;  // by sqrt(width), rounded to the embedding's working dtype
  double logit_softcap = 0.0;     // > 0: logits become softcap * tanh(logits / softcap)
  bool share_ffn = false;         // one FFN for the layers between keep_first and keep_last
  bool share_output = false;      // one attention output projection for them
  int64_t keep_first = 0;         // layers at the start that share neither, and at the end
  int64_t keep_last = 0;
  int64_t lora_rank = 0;  // > 0: each use of the shared FFN has adapters of its own
  int64_t repeat = 1;     // each stored block runs this often in a row

  bool operator==(const DecoderSpec& other) const;
  bool windowed(int64_t layer) const {
    return window > 0 && (global_every == 0 || (layer + 1) % global_every != 0);
  }
  // ConfigError naming the recipe's key (model.heads): a size out of range, sizes that do not fit together,
  // or a choice that the family's files cannot say.
  void validate() const;
};

class Decoder final : public Model {
 public:
  // Validates; declares and allocates the parameters, not initialised. On at::kMeta nothing is allocated and
  // only spec, parameters and flops_per_token may be asked: what a preset costs, for free.
  explicit Decoder(DecoderSpec spec, at::Device device = at::kCPU);
  ~Decoder() override;
  const DecoderSpec& spec() const;
  at::Tensor hidden(const TokenBlock& block, KvCache* cache = nullptr) override;
  // hidden() in pieces, for work that goes layer by layer: the residual stream [B, T, D] before layer 0, and
  // what layer n makes of it. `block` is the same in every piece.
  at::Tensor embed(const TokenBlock& block);
  at::Tensor run_layer(int64_t n, const at::Tensor& x_BTD, const TokenBlock& block);
  std::unique_ptr<KvCache> make_cache(int64_t batch, int64_t capacity) const override;
  Head head() const override;
  Parameters& parameters() override;
  const Parameters& parameters() const override;
  int64_t vocabulary() const override;
  int64_t context() const override;
  int64_t width() const override;
  int64_t layers() const override;
  double flops_per_token(int64_t tokens) const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Fills every master from counter-based streams named after the parameter: independent of order, ranks and of
// other parameters. `kind`: "gpt2" N(0, std), output projections * 1/sqrt(2 L); "normal" N(0, std);
// "scaled" N(0, 1/(3 D)), D the width. Norm weights 1 (0 with unit offset), biases and adapters' B 0. Refresh
// working copies that do not share the master's storage afterwards. ConfigError for an unknown kind.
void initialise(Parameters& parameters, const std::string& kind, double std, uint64_t seed);
std::vector<std::string> initialiser_names();

}  // namespace retort::models
