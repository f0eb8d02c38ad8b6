// The one decoder: a pre-norm transformer described by orthogonal choices. A published architecture is a translation to a
// DecoderSpec (models/families/), never a class of its own.
//
//   x = embed[tokens] (* sqrt(D)) (+ positions[p])
//   per layer: x += attn(norm(x)); x += ffn(norm(x)), each sum's new part normalised again with post_norms,
//   and the input of its last product (attn.o, ffn.down) with sub_norms
//   h = norm(x)
//
// Weights are [out, in]; docs/models.md lists their names and what may be shared. The residual stream, norms and softmax
// are f32; a Linear computes in its weight's dtype.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/weight_groups.h"

namespace retort::models {

class Decoder final : public Model, public LayerStack, public WeightGroups {
 public:
  // Validates; declares and allocates the parameters, not initialised. On at::kMeta nothing is allocated and
  // only spec, parameters and flops_per_token may be asked: what a preset costs, for free.
  explicit Decoder(DecoderSpec spec, at::Device device = at::kCPU);
  ~Decoder() override;
  const DecoderSpec& spec() const override;
  void set_tokens(int64_t ids) override;
  at::Tensor hidden(const TokenBlock& block, KvCache* cache = nullptr) override;
  LayerStack* layer_stack() override { return this; }
  WeightGroups* weight_groups() override { return this; }
  // Embedding and positions; each executed layer; final norm and head.
  std::vector<std::vector<const Parameter*>> groups() const override;
  void on_use(Use use) override;
  at::Tensor embed(const TokenBlock& block) override;
  at::Tensor run_layer(int64_t n, const at::Tensor& x_BTD, const TokenBlock& block) override;
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
// other parameters. `kind`: "gpt2" N(0, std), output projections * 1/sqrt(2 L); "normal" N(0, std). std 0 is
// 1/sqrt(3 D): GPT-2's .02 at width 768, and what narrower models need to start learning at once. Norm
// weights 1 (0 with unit offset), biases and adapters' B 0. Refresh working copies that do not share the
// master's storage afterwards. ConfigError for an unknown kind.
void initialise(Parameters& parameters, const std::string& kind, double std, uint64_t seed);
std::vector<std::string> initialiser_names();

}  // namespace retort::models
