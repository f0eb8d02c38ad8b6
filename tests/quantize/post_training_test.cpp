#include "quantize/post_training.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "models/decoder.h"
#include "quantize/packing_map.h"
#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using models::DecoderSpec;
using models::Parameter;

DecoderSpec small() {
  return {.vocabulary = 64,
          .context = 32,
          .layers = 3,
          .width = 64,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn_width = 96,
          .share_ffn = true};
}

std::unique_ptr<models::Decoder> random_model(const DecoderSpec& spec) {
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.15, 4);
  return model;
}

std::vector<models::TokenBlock> random_blocks() {
  std::vector<models::TokenBlock> out;
  for (uint64_t b = 0; b < 8; ++b) {
    at::Tensor tokens = at::empty({4, 32}, at::kLong);
    const Random random(8, "test/tokens", b);
    for (int64_t i = 0; i < tokens.numel(); ++i)
      tokens.mutable_data_ptr<int64_t>()[i] =
          static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 64));
    out.push_back({tokens, {}, {}});
  }
  return out;
}

QuantizeOptions on(const std::string& weights, const std::string& embedding) {
  QuantizeOptions options;
  options.weights.grid = weights;
  options.embedding.grid = options.head.grid = embedding;
  return options;
}

struct Made {
  std::unique_ptr<models::Decoder> model;
  std::unique_ptr<CodesMap> map;
};

Made made(const DecoderSpec& spec, const PostTrainingOptions& options, const std::string& grid) {
  Log quiet(stderr, "", true);
  Made out{random_model(spec), nullptr};
  const QuantizeMap grids(on(grid, "q8_0"), out.model->parameters());
  out.map =
      post_train(*out.model, grids, options,
                 {options.calibrated() ? random_blocks() : std::vector<models::TokenBlock>(), {}}, quiet);
  return out;
}

at::Tensor logits(models::Decoder& model) {
  const at::NoGradGuard no_grad;
  at::Tensor tokens_BT = at::arange(64, at::kLong).mul(7).remainder(64).view({2, 32});
  return at::matmul(model.hidden({tokens_BT, {}, {}}), model.head().weight_VD.t());
}

}  // namespace

TEST(PostTraining, MastersAreTheValuesOfTheCodes) {
  for (const std::string& method : method_names()) {
    const Made m = made(small(), {.method = method}, "q4_0");
    int64_t on_grid = 0;
    for (const Parameter& p : m.model->parameters().unique()) {
      if (m.map->grid_of(p) == nullptr) {
        EXPECT_EQ(p.master.dim(), 1) << p.name;
        continue;
      }
      ++on_grid;
      EXPECT_TRUE(testing::same_bits(dequantize_blocks(m.map->quantize(p)), p.master)) << method << p.name;
      EXPECT_TRUE(testing::same_bits(formats::unpack(m.map->pack(p)), p.master)) << method << p.name;
      EXPECT_GT(m.map->relative_error(p), 0.0);
    }
    EXPECT_EQ(on_grid, 1 + 3 * 4 + 3) << method;  // the shared network once
  }
}

TEST(PostTraining, RoundToNearestIsTheQuantizeMap) {
  const Made m = made(small(), {}, "q4_0");
  const auto model = random_model(small());
  QuantizeMap map(on("q4_0", "q8_0"), model->parameters());
  map.enable(true);
  for (const Parameter& p : model->parameters().unique())
    EXPECT_TRUE(testing::same_bits(m.model->parameters().at(p.name).master, map.apply(p, p.master)))
        << p.name;
}

// Each layer of the calibrated methods is fed by the quantized ones before it, so outputs stay nearer.
TEST(PostTraining, CalibratedMethodsKeepTheOutputsNearer) {
  const at::Tensor full = logits(*random_model(small()));
  const auto distance = [&](const PostTrainingOptions& options) {
    return (logits(*made(small(), options, "q4_0").model) - full).norm().item<double>();
  };
  const double rtn = distance({});
  EXPECT_LT(distance({.method = "gptq"}), 0.9 * rtn);
  EXPECT_LT(distance({.method = "gptq", .act_order = true}), 0.9 * rtn);
  EXPECT_LT(distance({.method = "awq"}), rtn);
}

TEST(PostTraining, IsDeterministic) {
  for (const std::string method : {"gptq", "awq"}) {
    const Made a = made(small(), {.method = method}, "q4_0"), b = made(small(), {.method = method}, "q4_0");
    for (const Parameter& p : a.model->parameters().unique())
      EXPECT_TRUE(testing::same_bits(p.master, b.model->parameters().at(p.name).master)) << method << p.name;
  }
}

// A layer more costs its codes, and nothing of the size of its activations: 7 MiB a layer here.
TEST(PostTraining, MemoryDoesNotGrowWithTheLayers) {
  RETORT_NEEDS_COUNTED_MEMORY();
  const testing::Threads two_threads(2);  // each has buffers of its own
  Log quiet(stderr, "", true);
  const auto growth = [&](int64_t layers) {
    DecoderSpec spec = small();
    spec.context = 2048;
    spec.layers = layers;
    spec.width = 128;
    spec.head_dim = 32;
    spec.ffn_width = 256;
    spec.share_ffn = false;
    const auto model = random_model(spec);
    const QuantizeMap grids(on("q4_0", "q8_0"), model->parameters());
    const models::TokenBlock block{at::arange(2048).remainder(64).unsqueeze(0), {}, {}};
    return testing::peak_growth([&] { post_train(*model, grids, {.method = "gptq"}, {{block}, {}}, quiet); });
  };
  growth(1);  // what the libraries set up once
  const int64_t few = growth(2), many = growth(6);
  EXPECT_LT(many - few, 10 * testing::kMiB);
}

TEST(PostTraining, AnImportanceMatrixMovesTheErrorToWhatMattersLess) {
  DecoderSpec wide = small();
  wide.width = 256;
  wide.head_dim = 64;
  wide.ffn_width = 256;
  Log quiet(stderr, "", true);
  const auto error = [&](const std::string& grid, bool weighed) {
    const auto model = random_model(wide), before = random_model(wide);
    const QuantizeMap grids(on(grid, "q8_0"), model->parameters());
    Importance importance;
    for (const Parameter& p : model->parameters().unique())
      if (p.role == models::Role::kMatrix) {
        importance.mean_square_I[p.name] = at::ones({256});
        importance.mean_square_I[p.name].slice(0, 0, 4).fill_(1000);
      }
    post_train(*model, grids, {.method = weighed ? "imatrix" : "rtn"}, {{}, importance}, quiet);
    const auto loud = [](const models::Decoder& m) {
      return m.parameters().at("layers.0.attn.q.weight").master.slice(1, 0, 4);
    };
    return (loud(*model) - loud(*before)).norm().item<double>();
  };
  for (const char* grid : {"q4_k", "q4_0", "lsq3"})
    EXPECT_LT(error(grid, true), 0.9 * error(grid, false)) << grid;
}

// On every grid that fits rows: no scale of the search errs less in what is weighed.
TEST(PostTraining, ASearchWeighsErrors) {
  at::Tensor x = at::empty({4, 256});
  Random(1, "x").fill_normal(x, 1.0);
  const at::Tensor weight = at::ones({256});
  weight.slice(0, 0, 4).fill_(1000);
  for (const Grid& grid : grids()) {
    if (!grid.rows_alone || grid.searches) continue;
    const Grid searched = with_clip_search(grid);
    const auto error = [&](const Scales& scales) {
      return ((dequantize_blocks({grid.round(x, scales), scales}) - x).square() * weight)
          .sum()
          .item<double>();
    };
    const double weighed = error(searched.fit(x, weight));
    EXPECT_LE(weighed, error(searched.fit(x, {}))) << grid.name;
    EXPECT_LE(weighed, error(grid.fit(x, {}))) << grid.name;
  }
}

// The embedding, which no importance is measured of, is rounded as ever.
TEST(PostTraining, AnImportanceMatrixLeavesTheEmbeddingToItsGrid) {
  const Made plain = made(small(), {}, "q4_0"), weighed = made(small(), {.method = "imatrix"}, "q4_0");
  EXPECT_TRUE(testing::same_bits(plain.model->parameters().at("embed.weight").master,
                                 weighed.model->parameters().at("embed.weight").master));
}

TEST(PostTraining, AClipSearchNeverErrsMore) {
  at::Tensor x = at::empty({16, 64});
  Random(1, "x").fill_normal(x, 1.0);
  for (const std::string name : {"q4_0", "int4_g32", "int4_row"}) {
    const Grid &grid = grids().at(name), searched = with_clip_search(grid);
    const double plain = (dequantize_blocks(grid.quantize(x)) - x).norm().item<double>();
    const double clipped = (dequantize_blocks(searched.quantize(x)) - x).norm().item<double>();
    EXPECT_LT(clipped, 0.99 * plain) << name;
    EXPECT_EQ(searched.quantize(x).scales.scale.sizes(), grid.quantize(x).scales.scale.sizes());
  }
  DecoderSpec wide = small();  // a type with blocks of 256, and no search of its own
  wide.width = wide.ffn_width = 256, wide.head_dim = 64;
  const Made plain = made(wide, {}, "lsq3"), clipped = made(wide, {.clip_search = true}, "lsq3");
  const Parameter &a = plain.model->parameters().at("layers.0.ffn.up.weight"),
                  &b = clipped.model->parameters().at("layers.0.ffn.up.weight");
  EXPECT_LT(clipped.map->relative_error(b), plain.map->relative_error(a));
}

// One scale of a tensor cannot be searched for by rows.
TEST(PostTraining, SaysWhatAMethodCannotServe) {
  for (const Grid& grid : grids()) {
    const bool by_rows = grid.name != "ternary" && grid.name != "nvfp4";
    EXPECT_EQ(method_misfit({.method = "imatrix"}, grid, true).empty(), by_rows) << grid.name;
    EXPECT_EQ(method_misfit({.method = "imatrix"}, grid, false), "") << grid.name;
    EXPECT_EQ(method_misfit({.clip_search = true}, grid, true).empty(), by_rows) << grid.name;
  }
  DecoderSpec wide = small();
  wide.width = wide.ffn_width = 256, wide.head_dim = 64;
  EXPECT_THROW(made(wide, {.method = "imatrix"}, "ternary"), ConfigError);
  EXPECT_THROW(made(wide, {.clip_search = true}, "ternary"), ConfigError);
}

TEST(PostTraining, RefusesBeforeAnyWork) {
  Log quiet(stderr, "", true);
  const auto model = random_model(small());
  const QuantizeMap grids(on("q4_0", "q8_0"), model->parameters());
  EXPECT_THROW(post_train(*model, grids, {.method = "gptq"}, {}, quiet), ConfigError);  // no text
  const QuantizeMap whole(on("nvfp4", "q8_0"), model->parameters());
  EXPECT_THROW(post_train(*model, whole, {.method = "imatrix"}, {random_blocks(), {}}, quiet), ConfigError);
  model->parameters().at("layers.2.attn.o.weight").master[1][2] = std::nan("");
  const at::Tensor before = model->parameters().at("layers.0.attn.q.weight").master.clone();
  EXPECT_THROW(post_train(*model, grids, {}, {}, quiet), NonFiniteError);
  EXPECT_TRUE(testing::same_bits(before, model->parameters().at("layers.0.attn.q.weight").master));
}

}  // namespace retort::quantize
