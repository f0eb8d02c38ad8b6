#include "quantize/hf_packing.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "formats/packed_words.h"
#include "formats/safetensors.h"
#include "quantize/post_training.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using models::Parameter;

struct PackedModel {
  std::unique_ptr<models::Decoder> model;
  std::unique_ptr<CodesMap> map;
};

models::DecoderSpec small() {
  return {.vocabulary = 64,
          .context = 32,
          .layers = 2,
          .width = 64,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn_width = 96,
          .share_ffn = true};
}

PackedModel on(const std::string& grid, models::DecoderSpec spec = small()) {
  PackedModel out{std::make_unique<models::Decoder>(spec), nullptr};
  models::initialise(out.model->parameters(), "normal", 0.15, 4);
  QuantizeOptions options;
  options.weights.grid = grid;
  options.embedding.grid = options.head.grid = "none";
  Log quiet(stderr, "", true);
  out.map = post_train(*out.model, QuantizeMap(options, out.model->parameters()), {}, {}, quiet);
  return out;
}

formats::SafetensorsFile written(const PackedModel& q, const std::string& layout, bool activations,
                                 const Path& folder) {
  models::IdentityMap identity;
  models::save_hf_folder(local_files(), folder, *q.model, identity, at::kFloat,
                         pack_for_hf(layout, *q.model, *q.map, activations, at::kFloat));
  return formats::SafetensorsFile(folder / "model.safetensors");
}

const std::string kUp = "model.layers.1.mlp.up_proj.";  // of the shared network: written for every layer

}  // namespace

// The packed words, read back by the layout's own rule, are the judged weights, bit for bit.
TEST(HfPacking, CompressedIntegersAreTheJudgedWeights) {
  for (const auto& [grid, bits] :
       {std::pair{"int4_g32", 4}, std::pair{"int4_row", 4}, std::pair{"int8_row", 8}}) {
    const testing::TemporaryDirectory directory;
    const PackedModel q = on(grid);
    const auto file = written(q, "compressed-tensors", false, directory / "out");
    EXPECT_FALSE(file.contains(kUp + "weight"));
    EXPECT_TRUE(at::equal(file.tensor(kUp + "weight_shape"), at::tensor({96, 64}, at::kLong)));
    const at::Tensor scale = file.tensor(kUp + "weight_scale");
    const at::Tensor codes =
        formats::unpack_words(file.tensor(kUp + "weight_packed"), bits, 64) - (1 << (bits - 1));
    const at::Tensor values = codes.to(at::kFloat) * scale.repeat_interleave(64 / scale.size(1), 1);
    EXPECT_TRUE(at::equal(values, q.model->parameters().at("layers.0.ffn.up.weight").master)) << grid;
    const formats::Json config =
        formats::read_json(directory / "out" / "config.json").at("quantization_config");
    EXPECT_EQ(config.at("format"), "pack-quantized");
    const formats::Json& group = config.at("config_groups").at("group_0");
    EXPECT_EQ(group.at("weights").at("num_bits"), bits);
    EXPECT_TRUE(group.at("input_activations").is_null());
    EXPECT_EQ(config.at("ignore"), (std::vector<std::string>{"lm_head"}));
  }
}

TEST(HfPacking, RoundedActivationsTakePlainCodes) {
  for (const auto& [grid, format] :
       {std::pair{"int8_row", "int-quantized"}, std::pair{"fp8", "float-quantized"}}) {
    const testing::TemporaryDirectory directory;
    const PackedModel q = on(grid);
    const auto file = written(q, "compressed-tensors", true, directory / "out");
    const at::Tensor codes = file.tensor(kUp + "weight"), scale = file.tensor(kUp + "weight_scale");
    EXPECT_EQ(codes.scalar_type(), std::string(grid) == "fp8" ? at::kFloat8_e4m3fn : at::kChar);
    EXPECT_EQ(scale.sizes().vec(), (std::vector<int64_t>{96, 1}));
    EXPECT_TRUE(
        at::equal(codes.to(at::kFloat) * scale, q.model->parameters().at("layers.0.ffn.up.weight").master));
    const formats::Json config =
        formats::read_json(directory / "out" / "config.json").at("quantization_config");
    EXPECT_EQ(config.at("format"), format);
    const formats::Json& inputs = config.at("config_groups").at("group_0").at("input_activations");
    EXPECT_EQ(inputs.at("strategy"), "token");
    EXPECT_EQ(inputs.at("dynamic"), true);
  }
}

TEST(HfPacking, Nvfp4IsTheJudgedWeights) {
  const testing::TemporaryDirectory directory;
  const PackedModel q = on("nvfp4");
  const auto file = written(q, "compressed-tensors", false, directory / "out");
  EXPECT_EQ(file.tensor(kUp + "weight_packed").sizes().vec(), (std::vector<int64_t>{96, 32}));
  const at::Tensor bytes = file.tensor(kUp + "weight_packed").to(at::kLong);
  const at::Tensor nibbles = at::stack({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, -1).flatten(1);
  const at::Tensor numbers =
      at::tensor({0., .5, 1., 1.5, 2., 3., 4., 6., 0., -.5, -1., -1.5, -2., -3., -4., -6.}, at::kFloat);
  const at::Tensor scale = file.tensor(kUp + "weight_scale"),
                   global = file.tensor(kUp + "weight_global_scale");
  EXPECT_EQ(scale.scalar_type(), at::kFloat8_e4m3fn);
  EXPECT_EQ(global.sizes().vec(), std::vector<int64_t>{1});
  const at::Tensor values =
      numbers.index({nibbles}) * (scale.to(at::kFloat) / global).repeat_interleave(16, 1);
  EXPECT_TRUE(at::equal(values, q.model->parameters().at("layers.0.ffn.up.weight").master));
  const formats::Json config =
      formats::read_json(directory / "out" / "config.json").at("quantization_config");
  EXPECT_EQ(config.at("format"), "nvfp4-pack-quantized");
  const formats::Json& group = config.at("config_groups").at("group_0");
  EXPECT_EQ(group.at("weights").at("strategy"), "tensor_group");
  EXPECT_EQ(group.at("weights").at("group_size"), 16);
  EXPECT_TRUE(group.at("input_activations").is_null());
  EXPECT_THROW(pack_for_hf("compressed-tensors", *q.model, *q.map, true, at::kFloat), ConfigError);
  const auto back = models::load_hf_folder(directory / "out");
  EXPECT_TRUE(at::equal(back->parameters().at("layers.1.ffn.up.weight").master, values));

  models::DecoderSpec fused = small();
  fused.family = "phi3";
  fused.share_ffn = false;
  const PackedModel phi3 = on("nvfp4", fused);
  EXPECT_THROW(pack_for_hf("compressed-tensors", *phi3.model, *phi3.map, false, at::kFloat), ConfigError);
}

TEST(HfPacking, GptqWordsRunDownTheColumns) {
  for (const auto& [layout, zero] : {std::pair{"gptq", 7}, std::pair{"gptq_v2", 8}}) {
    const testing::TemporaryDirectory directory;
    const PackedModel q = on("int4_g32");
    const auto file = written(q, layout, false, directory / "out");
    const at::Tensor codes = formats::unpack_words(file.tensor(kUp + "qweight").t(), 4, 64);  // [O, I]
    const at::Tensor zeros = formats::unpack_words(file.tensor(kUp + "qzeros"), 4, 96);       // [I / g, O]
    EXPECT_TRUE(zeros.eq(zero).all().item<bool>()) << layout;
    const at::Tensor groups = file.tensor(kUp + "g_idx");
    EXPECT_EQ(groups[31].item<int64_t>(), 0);
    EXPECT_EQ(groups[32].item<int64_t>(), 1);
    EXPECT_EQ(file.entries().at(kUp + "scales").dtype, "F16");
    const at::Tensor scale = file.tensor(kUp + "scales").to(at::kFloat).t().repeat_interleave(32, 1);
    EXPECT_TRUE(at::equal((codes - 8).to(at::kFloat) * scale,
                          q.model->parameters().at("layers.0.ffn.up.weight").master));
    const formats::Json config = formats::read_json(directory / "out" / "quantize_config.json");
    EXPECT_EQ(config.at("checkpoint_format"), layout);
    EXPECT_EQ(config.at("group_size"), 32);
    EXPECT_EQ(formats::read_json(directory / "out" / "config.json").at("quantization_config"), config);
  }
}

// Phi-3 folders hold q, k and v as one matrix.
TEST(HfPacking, RowsOfOneMatrixLieOnOneGrid) {
  models::DecoderSpec spec = small();
  spec.family = "phi3";
  spec.share_ffn = false;
  PackedModel q{std::make_unique<models::Decoder>(spec), nullptr};
  models::initialise(q.model->parameters(), "normal", 0.15, 4);
  Log quiet(stderr, "", true);
  QuantizeOptions options{{"int4_g32"}, {"none"}, {"none"}, {{"layers.0.attn.k.weight", "none"}}};
  q.map = post_train(*q.model, QuantizeMap(options, q.model->parameters()), {}, {}, quiet);
  try {
    pack_for_hf("compressed-tensors", *q.model, *q.map, false, at::kFloat);
    FAIL();
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    for (const char* part : {"qkv_proj", "layers.0.attn.k.weight", "int4_g32 and none"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  options.except = {{"layers.0.attn.*", "none"}};
  PackedModel whole{std::make_unique<models::Decoder>(spec), nullptr};
  models::initialise(whole.model->parameters(), "normal", 0.15, 4);
  whole.map = post_train(*whole.model, QuantizeMap(options, whole.model->parameters()), {}, {}, quiet);
  const testing::TemporaryDirectory directory;
  const auto file = written(whole, "compressed-tensors", false, directory / "out");
  EXPECT_TRUE(file.contains("model.layers.0.self_attn.qkv_proj.weight"));
  EXPECT_TRUE(file.contains("model.layers.1.self_attn.qkv_proj.weight_packed"));
}

TEST(HfPacking, SaysWhatALayoutCannotHold) {
  EXPECT_EQ(layout_misfit("compressed-tensors", grids().at("int4_g32")), "");
  EXPECT_NE(layout_misfit("compressed-tensors", grids().at("q4_0")).find("it holds "), std::string::npos);
  EXPECT_NE(layout_misfit("gptq", grids().at("fp8")), "");
  EXPECT_THROW(layout_misfit("awq", grids().at("int4_g32")), ConfigError);
  const PackedModel q = on("q4_0"), four = on("int4_g32"), none = on("none");
  EXPECT_THROW(pack_for_hf("gptq", *q.model, *q.map, false, at::kFloat), ConfigError);
  EXPECT_THROW(pack_for_hf("gptq", *none.model, *none.map, false, at::kFloat), ConfigError);
  EXPECT_THROW(pack_for_hf("compressed-tensors", *four.model, *four.map, true, at::kFloat), ConfigError);

  models::DecoderSpec gpt2 = small();
  gpt2.family = "gpt2";
  gpt2.share_ffn = false;
  gpt2.kv_heads = 4;
  gpt2.norm = models::NormKind::kLayer;
  gpt2.ffn = models::FfnKind::kGelu;
  gpt2.positions = models::PositionKind::kLearned;
  gpt2.attention_bias = gpt2.ffn_bias = true;
  const PackedModel conv = on("int4_g32", gpt2);
  EXPECT_THROW(pack_for_hf("compressed-tensors", *conv.model, *conv.map, false, at::kFloat), ConfigError);
}

}  // namespace retort::quantize
