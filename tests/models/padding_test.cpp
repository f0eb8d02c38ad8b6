// Rows of a vocabulary after its tokens, wherever a model is used (models/model.h).
#include <gtest/gtest.h>

#include "core/error.h"
#include "formats/ggml_blocks.h"
#include "kernels/linear_loss.h"
#include "models/family.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::random_model;
using testing::random_tokens;

constexpr int64_t kTokens = 50;

// The same weights, with and without rows that would win wherever they took part.
struct Pair {
  explicit Pair(DecoderSpec spec) {
    spec.vocabulary = kTokens;
    plain = random_model(spec);
    spec.vocabulary = kTokens + 7;
    padded = random_model(spec);
    const at::NoGradGuard no_grad;
    for (Parameter& p : padded->parameters().unique()) {
      const at::Tensor& same = plain->parameters().at(p.name).master;
      if (p.shape[0] == spec.vocabulary)
        p.master.fill_(9.0).narrow(0, 0, kTokens).copy_(same);
      else
        p.master.copy_(same);
    }
    padded->set_tokens(kTokens);
    refresh_working(padded->parameters(), identity);
  }
  IdentityMap identity;
  std::unique_ptr<Decoder> plain, padded;
};

std::vector<DecoderSpec> tied_and_untied() {
  DecoderSpec tied = testing::tiny_llama();
  tied.tie_embeddings = true;
  return {testing::tiny_llama(), tied};
}

}  // namespace

TEST(Padding, TheHeadHasTheTokensAlone) {
  for (const DecoderSpec& spec : tied_and_untied()) {
    const Pair pair(spec);
    EXPECT_EQ(pair.padded->tokens(), kTokens);
    EXPECT_EQ(pair.padded->vocabulary(), kTokens + 7);
    const at::Tensor tokens_BT = random_tokens(2, 9, kTokens);
    EXPECT_TRUE(testing::same_bits(testing::logits(*pair.padded, {tokens_BT}).detach(),
                                   testing::logits(*pair.plain, {tokens_BT}).detach()));
    const at::Tensor labels_N = random_tokens(1, 18, kTokens, 5).flatten();
    const auto loss = [&](Decoder& model) {
      const at::Tensor sum =
          kernels::linear_cross_entropy(model.hidden({tokens_BT}).flatten(0, 1), model.head(), labels_N);
      sum.backward();
      return sum.detach();
    };
    EXPECT_TRUE(testing::same_bits(loss(*pair.padded), loss(*pair.plain)));
    for (const Parameter& p : pair.padded->parameters().unique()) {
      const at::Tensor own = p.working.grad(), other = pair.plain->parameters().at(p.name).working.grad();
      const bool table = p.shape[0] == kTokens + 7;
      EXPECT_TRUE(testing::same_bits(table ? own.narrow(0, 0, kTokens) : own, other)) << p.name;
      if (!table) continue;
      EXPECT_EQ(own.narrow(0, kTokens, 7).count_nonzero().item<int64_t>(), 0) << p.name;
    }
  }
}

// A row's values cannot keep it from taking probability, so files of other software are as large as the tokenizer.
TEST(Padding, FilesHoldTheTokensAlone) {
  const testing::TemporaryDirectory directory;
  for (const DecoderSpec& spec : tied_and_untied()) {
    const Pair pair(spec);
    const Path hf = directory / "hf", gguf = directory / "m.gguf";
    save_hf_folder(local_files(), hf, *pair.padded, const_cast<IdentityMap&>(pair.identity), at::kFloat, {});
    save_gguf(
        local_files(), gguf, *pair.padded,
        [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); }, {}, "test");
    for (const auto& back : {load_hf_folder(hf), load_gguf(gguf)}) {
      EXPECT_EQ(back->vocabulary(), kTokens);
      EXPECT_EQ(back->tokens(), kTokens);
      for (const Parameter& p : pair.plain->parameters().unique())
        EXPECT_TRUE(testing::same_bits(back->parameters().at(p.name).master, p.master)) << p.name;
    }
  }
}

TEST(Padding, TokensAreWithinTheVocabulary) {
  DecoderSpec spec = testing::tiny_llama();
  spec.set_tokens(spec.vocabulary);
  EXPECT_EQ(spec, testing::tiny_llama());  // none is padding
  EXPECT_THROW(spec.set_tokens(spec.vocabulary + 1), InternalError);
  EXPECT_THROW(spec.set_tokens(0), InternalError);
}

}  // namespace retort::models
