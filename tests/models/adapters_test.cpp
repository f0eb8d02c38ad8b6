#include "models/adapters.h"

#include "core/error.h"
#include "core/random.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::relative_error;
using testing::same_bits;

// Interior sharing of the feed-forward network and the attention output, tied head.
DecoderSpec shared_spec(int64_t lora_rank) {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 5;
  spec.share_ffn = spec.share_output = spec.tie_embeddings = true;
  spec.keep_first = spec.keep_last = 1;
  spec.lora_rank = lora_rank;
  return spec;
}

std::unique_ptr<Decoder> adapted_model() {
  auto model = testing::random_model(shared_spec(3));
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique())
    if (p.role == Role::kLoraB) Random(4, p.name).fill_normal(p.master, 0.1);
  return model;
}

at::Tensor logits_of(Model& model) {
  const at::NoGradGuard no_grad;
  return testing::logits(model, {testing::random_tokens(2, 9, 96), {}, {}});
}

TEST(Adapters, EachUseInTheRangeHasItsOwn) {
  const Decoder model(shared_spec(3), at::kMeta);
  const Parameters& p = model.parameters();
  EXPECT_EQ(&p.at("layers.3.ffn.up.weight"), &p.at("layers.1.ffn.up.weight"));
  EXPECT_NE(&p.at("layers.0.ffn.up.weight"), &p.at("layers.1.ffn.up.weight"));
  EXPECT_NE(&p.at("layers.4.attn.o.weight"), &p.at("layers.1.attn.o.weight"));
  EXPECT_EQ(&p.at("layers.2.attn.o.weight"), &p.at("layers.1.attn.o.weight"));
  EXPECT_NE(&p.at("layers.3.ffn.up.lora_a.weight"), &p.at("layers.1.ffn.up.lora_a.weight"));
  EXPECT_FALSE(p.contains("layers.0.ffn.up.lora_a.weight"));
  EXPECT_FALSE(p.contains("layers.2.attn.o.lora_a.weight"));
  // Three uses of three matrices, rank (in + out) each.
  EXPECT_EQ(p.stored() - Decoder(shared_spec(0), at::kMeta).parameters().stored(), 3 * 3 * 3 * (32 + 48));
  EXPECT_EQ(p.expanded(), Decoder(shared_spec(0), at::kMeta).parameters().expanded());
}

TEST(Adapters, AddNothingUntilTheyAreTrained) {
  auto adapted = std::make_unique<Decoder>(shared_spec(3)), plain = std::make_unique<Decoder>(shared_spec(0));
  for (Decoder* model : {adapted.get(), plain.get()}) initialise(model->parameters(), "gpt2", 0.08, 1);
  EXPECT_TRUE(same_bits(logits_of(*adapted), logits_of(*plain)));
  EXPECT_GT(adapted->parameters().at("layers.2.ffn.up.lora_a.weight").master.abs().sum().item<float>(), 0.0f);
}

TEST(Adapters, MergedModelComputesTheSame) {
  const auto model = adapted_model();
  IdentityMap identity;
  const auto merged = merge_adapters(*model, identity);
  EXPECT_EQ(merged->parameters().stored(), model->parameters().expanded());
  EXPECT_EQ(merged->parameters().unique().size() + 1,  // the tied head
            Decoder(testing::tiny_llama(), at::kMeta).parameters().unique().size() + 3 * 9);
  EXPECT_LT(relative_error(logits_of(*merged), logits_of(*model)), 1e-5);
  EXPECT_GT(relative_error(logits_of(*merged), logits_of(*testing::random_model(shared_spec(0)))), 1e-2);
}

TEST(Adapters, MergeTakesTheMapsValues) {
  struct Rounding final : WeightMap {
    at::Tensor apply(const Parameter&, const at::Tensor& x) override { return (x * 8).round() / 8; }
    at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  } map;
  const auto model = adapted_model();
  const auto merged = merge_adapters(*model, map);
  bind_working(model->parameters(), map, at::kFloat);
  EXPECT_LT(relative_error(logits_of(*merged), logits_of(*model)), 1e-5);
}

// Files of other software hold the merged layers, and only them.
TEST(Adapters, LeaveMerged) {
  const testing::TemporaryDirectory directory;
  const auto model = adapted_model();
  IdentityMap identity;
  const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
  EXPECT_THROW(save_hf_folder(local_files(), directory / "hf", *model, identity, at::kFloat, {}),
               InternalError);
  EXPECT_THROW(save_gguf(local_files(), directory / "m.gguf", *model, pack, {}, "m"), InternalError);

  const auto merged = merge_adapters(*model, identity);
  save_hf_folder(local_files(), directory / "hf", *merged, identity, at::kFloat, {});
  save_gguf(local_files(), directory / "m.gguf", *merged, pack, {}, "m");
  EXPECT_TRUE(same_bits(logits_of(*load_hf_folder(directory / "hf")), logits_of(*merged)));
  EXPECT_TRUE(same_bits(logits_of(*load_gguf(directory / "m.gguf")), logits_of(*merged)));
}

}  // namespace
}  // namespace retort::models
