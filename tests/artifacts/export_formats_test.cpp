#include "artifacts/export_formats.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "models/family.h"
#include "quantize/hf_packing.h"
#include "quantize/post_training.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

// A model whose matrices are on a grid and whose tables stay f32; every grid divides its rows.
OpenedModel on_grid(const std::string& grid) {
  models::DecoderSpec spec = tiny_model(1)->spec();
  spec.width = spec.ffn_width = 256;
  spec.head_dim = 128;
  OpenedModel model = new_model(spec, 3, "made");
  quantize::QuantizeOptions options;
  options.weights.grid = grid;
  options.embedding.grid = options.head.grid = "none";
  Log quiet(stderr, "", true);
  model.grids = quantize::post_train(
      *model.decoder, quantize::QuantizeMap(options, model.decoder->parameters()), {}, {}, quiet);
  return model;
}

void expect_same_values(const models::Model& a, const models::Model& b, const std::string& what) {
  for (const models::Parameter& p : a.parameters().unique())
    for (const std::string& use : p.uses)
      EXPECT_TRUE(at::equal(p.master, b.parameters().at(use).master)) << what << " " << use;
}

}  // namespace

// Each format, with each of the grids that it says it holds, gives back the values.
TEST(ExportFormats, HoldWhatTheySay) {
  testing::TemporaryDirectory directory;
  Log quiet(stderr, "", true);
  int pairs = 0;
  for (const quantize::Grid& grid : quantize::grids()) {
    if (grid.learned) continue;  // training finds its scales
    const OpenedModel model = on_grid(grid.name);
    for (const ExportFormat& format : export_formats()) {
      quantize::QuantizeOptions grids;
      grids.weights.grid = grid.name;
      grids.embedding.grid = grids.head.grid = "none";
      const Path out = directory / (grid.name + "-" + format.name);
      ExportOptions options;
      options.format = format.name;
      if (!grid_misfits(format, grids).empty()) {
        EXPECT_THROW(export_model(model, options, out, local_files()), ConfigError) << out;
        continue;
      }
      probe_export("--out", format.name, out, "");
      const uint64_t written = export_model(model, options, out, local_files());
      EXPECT_EQ(written, bytes_below(out));
      EXPECT_EQ(std::filesystem::is_regular_file(out), format.one_file());
      expect_same_values(*model.decoder, *open_model(out, quiet).decoder, out.string());
      ++pairs;
    }
  }
  EXPECT_GT(pairs, 30);
}

// Every format, in every type, with and without a grid of its own: no file holds a value that is none.
TEST(ExportFormats, ValuesThatNoFileMayHoldAreRefused) {
  testing::TemporaryDirectory directory;
  const auto refused = [&](const ExportFormat& format, const std::string& type, double value,
                           const auto& error) {
    OpenedModel model = on_grid(format.packs == Packs::kMatrices ? "int8_row" : "q8_0");
    if (format.packs != Packs::kMatrices && type != "own") model.grids = nullptr;
    model.decoder->parameters().at("final_norm.weight").master.fill_(1.0);
    model.decoder->parameters().at("embed.weight").master[2][3] = value;
    ExportOptions options;
    options.format = format.name;
    options.type = type;
    const Path out = directory / (format.name + type);
    EXPECT_THAT([&] { export_model(model, options, out, local_files()); }, error)
        << format.name << " " << type;
    EXPECT_FALSE(std::filesystem::exists(out)) << out;
  };
  for (const ExportFormat& format : export_formats()) {
    std::vector<std::string> types = format.types;
    types.emplace_back("own");
    for (const std::string& type : types)
      refused(format, type, NAN,
              ThrowsMessage<NonFiniteError>(
                  "[export] embed.weight: its weights must be finite, and [2, 3] is nan"));
    if (std::ranges::count(types, "f16") > 0)
      refused(format, "f16", 7e4, ThrowsMessage<ConfigError>(HasSubstr("[2, 3] is beyond the range of f16")));
  }
}

TEST(ExportFormats, CodesNeedAPlaceInTheFile) {
  quantize::QuantizeOptions grids;
  EXPECT_THAT(grid_misfits(export_formats().at("gguf"), grids), IsEmpty());
  grids.weights.grid = "nvfp4";
  grids.head.grid = "fp8";
  const auto gguf = grid_misfits(export_formats().at("gguf"), grids);
  ASSERT_EQ(gguf.size(), 2u);
  EXPECT_EQ(gguf[0].part, "weights");
  EXPECT_EQ(gguf[0].why, "a GGUF cannot hold grid nvfp4; format compressed-tensors can");
  EXPECT_EQ(gguf[1].part, "head");
  EXPECT_THAT(grid_misfits(export_formats().at("compressed-tensors"), grids),
              IsEmpty());  // tables are values
  EXPECT_THAT(grid_misfits(export_formats().at("hf"), grids), IsEmpty());
  EXPECT_EQ(grid_misfits(export_formats().at("peft"), grids).front().why,
            "a peft folder holds adapters and no weight of a model");
  grids.weights.grid = "none";
  EXPECT_EQ(grid_misfits(export_formats().at("gptq"), grids).front().why, "names no grid to pack");
}

TEST(ExportFormats, EveryPackedOneIsALayoutOfItsName) {
  int64_t packed = 0;
  for (const ExportFormat& format : export_formats()) {
    if (format.packs != Packs::kMatrices) continue;
    EXPECT_NO_THROW(quantize::layout_misfit(format.name, quantize::grids().at("q4_0"))) << format.name;
    ++packed;
  }
  EXPECT_GT(packed, 0);
}

}  // namespace retort::artifacts
