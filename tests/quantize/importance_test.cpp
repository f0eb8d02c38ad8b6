#include "quantize/importance.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "formats/gguf.h"
#include "models/decoder.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

std::unique_ptr<models::Decoder> random_model(const std::string& family) {
  models::DecoderSpec spec{.vocabulary = 64,
                           .context = 32,
                           .layers = 3,
                           .width = 32,
                           .heads = 4,
                           .kv_heads = 4,
                           .head_dim = 8,
                           .ffn_width = 48};
  spec.family = family;
  spec.share_ffn = true;
  if (family == "gpt2") {
    spec.norm = models::NormKind::kLayer;
    spec.ffn = models::FfnKind::kGelu;
    spec.positions = models::PositionKind::kLearned;
    spec.attention_bias = spec.ffn_bias = true;
  }
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.1, 4);
  return model;
}

const std::vector<models::TokenBlock> kBlocks = {{at::arange(48, at::kLong).view({2, 24}), {}, {}},
                                                 {at::arange(10, 58, at::kLong).view({2, 24}), {}, {}}};

Importance measured(models::Decoder& model) {
  Log quiet(stderr, "", true);
  return measure_importance(model, kBlocks, quiet);
}

}  // namespace

TEST(Importance, IsTheMeanSquareOfWhatAMatrixReads) {
  const at::NoGradGuard no_grad;
  const auto model = random_model("llama");
  const Importance importance = measured(*model);
  EXPECT_EQ(importance.tokens, 96);
  EXPECT_EQ(importance.mean_square_I.size(), 3u * 4 + 3);  // one feed-forward network for all layers
  models::Parameter& down = model->parameters().at("layers.0.ffn.down.weight");
  at::Tensor sum = at::zeros({48}, at::kDouble);
  down.observer = [&](const at::Tensor& x) {
    sum += x.to(at::kDouble).square().sum(at::IntArrayRef({0, 1}));
  };
  for (const models::TokenBlock& block : kBlocks) model->hidden(block);
  down.observer = nullptr;
  EXPECT_LT(testing::relative_error(importance.mean_square_I.at(down.name), sum / (3.0 * 96)), 1e-5);
}

TEST(Importance, ItsFileComesBackAndNamesEveryUse) {
  for (const std::string family : {"llama", "gpt2"}) {  // gpt2 fuses q, k and v
    const testing::TemporaryDirectory directory;
    const auto model = random_model(family);
    const Importance importance = measured(*model);
    const Path path = directory / "imatrix.gguf";
    save_importance(local_files(), path, *model, importance, "a text", 24);
    EXPECT_TRUE(is_importance_file(path));
    std::filesystem::copy_file(path, directory / "imatrix",
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_TRUE(is_importance_file(directory / "imatrix"));  // by what it holds
    EXPECT_FALSE(is_importance_file(directory.path()));
    const formats::GgufFile file(path);
    EXPECT_EQ(file.text("general.type"), "imatrix");
    EXPECT_EQ(file.integer("imatrix.chunk_count"), 4);
    EXPECT_EQ(file.integer("imatrix.chunk_size"), 24);
    for (int layer = 0; layer < 3; ++layer)
      EXPECT_NE(file.find_tensor(fmt::format("blk.{}.ffn_down.weight.in_sum2", layer)), nullptr);
    const Importance back = load_importance(path, *model);
    EXPECT_EQ(back.tokens, importance.tokens);
    ASSERT_EQ(back.mean_square_I.size(), importance.mean_square_I.size());
    for (const auto& [name, values] : importance.mean_square_I)
      EXPECT_LT(testing::relative_error(back.mean_square_I.at(name), values), 1e-6) << name;
  }
}

TEST(Importance, RefusesTheFileOfAnotherModel) {
  const testing::TemporaryDirectory directory;
  const auto model = random_model("llama"), other = random_model("gpt2");
  const Path path = directory / "imatrix.gguf";
  save_importance(local_files(), path, *other, measured(*other), "a text", 24);
  EXPECT_THROW(load_importance(path, *model), DataError);
}

}  // namespace retort::quantize
