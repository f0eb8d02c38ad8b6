#include "models/layers.h"

#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::same_bits;

// A decoder is an embedding, a stack and a norm, so a stack of its own weights below a prefix gives its bits.
TEST(Layers, AStackBelowAPrefixIsADecodersBody) {
  const DecoderSpec spec = testing::tiny_llama();
  Decoder decoder(spec);
  initialise(decoder.parameters(), "normal", 0.2, 3);
  Parameters parameters;
  Layers other(parameters, spec, "other."), stack(parameters, spec, "inner.");
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    const std::string name = p.name.substr(p.name.find('.') + 1);
    p.master.copy_(decoder.parameters().at(name).master);
    if (p.name.starts_with("other.")) p.master.mul_(2);
  }
  IdentityMap identity;
  bind_working(decoder.parameters(), identity, at::kFloat);
  bind_working(parameters, identity, at::kFloat);

  const at::Tensor tokens_BT = (at::arange(2 * 9) * 5 % spec.vocabulary).view({2, 9});
  stack.prepare(9, at::kCPU);
  Residual stream = stack(decoder.parameters().at("embed.weight").working.index({tokens_BT}),
                          {.positions_BT = at::arange(9).expand({2, 9})});
  const Norm norm{&decoder.parameters().at("final_norm.weight"), nullptr, spec.norm_eps, false};
  EXPECT_TRUE(same_bits(norm(stream.sum()), decoder.hidden({tokens_BT})));  // and with the sum in the norm:
  EXPECT_TRUE(same_bits(norm(stream), decoder.hidden({tokens_BT})));
}

TEST(Layers, PreparesMorePositionsWhenAsked) {
  const DecoderSpec spec = testing::tiny_llama();
  Parameters parameters;
  Layers stack(parameters, spec, "");
  parameters.add("embed.weight", {4, spec.width}, Role::kEmbedding);  // its width is the initialiser's
  initialise(parameters, "normal", 0.2, 3);
  IdentityMap identity;
  bind_working(parameters, identity, at::kFloat);
  const at::NoGradGuard no_grad;
  const at::Tensor x_BTD = at::ones({1, 12, spec.width});
  const LayerCall call{.positions_BT = at::arange(12).unsqueeze(0)};
  stack.prepare(12, at::kCPU);
  const at::Tensor at_once = stack(x_BTD, call).sum();
  stack.prepare(300, at::kCPU);
  EXPECT_TRUE(same_bits(stack(x_BTD, call).sum(), at_once));
}

}  // namespace
}  // namespace retort::models
