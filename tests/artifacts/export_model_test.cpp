#include "artifacts/export_model.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "formats/gguf.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

OpenedModel opened(const Path& path) {
  Log log(stderr, "", true);
  return open_model(path, log);
}

OpenedModel quantized_model(const Path& directory) {
  save_tiny(*tiny_model(4), directory, 1, quantize::QuantizeOptions{});
  return opened(directory);
}

ExportOptions of_type(const std::string& type, const std::string& embedding = "same") {
  ExportOptions options;
  options.type = type;
  options.embedding_type = embedding;
  return options;
}

}  // namespace

// The file holds the weights that were judged: packed, and as values.
TEST(ExportModel, OwnGridsAndTheirValuesAreTheSameNumbers) {
  testing::TemporaryDirectory directory;
  const OpenedModel model = quantized_model(directory / "stage");
  const uint64_t packed = export_model(model, of_type("own"), directory / "own.gguf", local_files());
  const uint64_t values = export_model(model, of_type("f32"), directory / "f32.gguf", local_files());
  EXPECT_LT(packed, values);
  const formats::GgufFile own(directory / "own.gguf"), f32(directory / "f32.gguf");
  int quantized = 0;
  for (const formats::GgufTensorInfo& tensor : own.tensors()) {
    EXPECT_TRUE(at::equal(own.values(tensor.name), f32.values(tensor.name))) << tensor.name;
    quantized += tensor.type == formats::GgmlType::Q4_0 || tensor.type == formats::GgmlType::Q8_0;
  }
  EXPECT_EQ(own.find_tensor("token_embd.weight")->type, formats::GgmlType::Q8_0);
  EXPECT_EQ(quantized, 1 + 2 * 7);
  EXPECT_EQ(own.find_tensor("output.weight"), nullptr);  // tied
}

TEST(ExportModel, ATypeIsChosenForMatricesAndForTheEmbedding) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(5), directory / "stage", 1, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel model = open_model(directory / "stage", log);
  export_model(model, of_type("q4_0", "f16"), directory / "a.gguf", local_files());
  const formats::GgufFile file(directory / "a.gguf");
  EXPECT_EQ(file.find_tensor("token_embd.weight")->type, formats::GgmlType::F16);
  EXPECT_EQ(file.find_tensor("blk.1.ffn_up.weight")->type, formats::GgmlType::Q4_0);
  EXPECT_EQ(file.find_tensor("blk.1.ffn_norm.weight")->type, formats::GgmlType::F32);
  EXPECT_EQ(bytes_below(directory / "a.gguf"), std::filesystem::file_size(directory / "a.gguf"));

  ExportOptions hf = of_type("q4_0");
  hf.format = "hf";
  EXPECT_THROW(export_model(model, hf, directory / "hf", local_files()), ConfigError);
}

// Interior sharing with adapters, through a checkpoint and out: files hold the merged layers, which compute
// what the model computed.
TEST(ExportModel, AdaptersLeaveMerged) {
  testing::TemporaryDirectory directory;
  models::DecoderSpec spec = tiny_model(1)->spec();
  spec.layers = 4;
  spec.share_output = true;
  spec.keep_first = spec.keep_last = 1;
  spec.lora_rank = 3;
  models::Decoder model(spec);
  models::initialise(model.parameters(), "normal", 0.1, 6);
  for (models::Parameter& p : model.parameters().unique())
    if (p.role == models::Role::kLoraB) Random(6, p.name).fill_normal(p.master, 0.1);
  save_tiny(model, directory / "stage", 1, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel opened = open_model(directory / "stage", log);
  export_model(opened, of_type("own"), directory / "m.gguf", local_files());
  ExportOptions hf = of_type("f32");
  hf.format = "hf";
  export_model(opened, hf, directory / "hf", local_files());

  const auto logits = [](models::Model& decoder) {
    const at::NoGradGuard no_grad;
    return decoder.hidden({at::arange(24, at::kLong).view({2, 12}), {}, {}})
        .matmul(decoder.head().weight_VD.t());
  };
  for (const char* file : {"m.gguf", "hf"}) {
    const OpenedModel back = open_model(directory / file, log);
    EXPECT_EQ(back.decoder->spec().lora_rank, 0) << file;
    EXPECT_EQ(back.decoder->parameters().stored(), opened.decoder->parameters().expanded()) << file;
    EXPECT_LT(testing::relative_error(logits(*back.decoder), logits(*opened.decoder)), 1e-5) << file;
    EXPECT_NE(back.tokenizer, nullptr) << file;
  }

  save_tiny(model, directory / "grid", 1, quantize::QuantizeOptions{});
  const OpenedModel on_grid = open_model(directory / "grid", log);
  EXPECT_THROW(export_model(on_grid, of_type("own"), directory / "x.gguf", local_files()), ConfigError);
  EXPECT_NO_THROW(export_model(on_grid, of_type("q8_0"), directory / "x.gguf", local_files()));
}

TEST(ExportModel, NeverReplacesTheModelThatIsRead) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(7), directory / "stage", 1, std::nullopt);
  ExportOptions hf = of_type("f16");
  hf.format = "hf";
  const OpenedModel model = opened(directory / "stage");
  export_model(model, of_type("f32"), directory / "m.gguf", local_files());
  export_model(model, hf, directory / "hf", local_files());
  std::filesystem::create_directory_symlink(directory / "hf", directory / "link");
  const std::string before = read_text(directory / "hf" / "model.safetensors");
  EXPECT_THROW(export_model(opened(directory / "hf"), hf, directory / "link", local_files()), IoError);
  EXPECT_THROW(export_model(opened(directory / "hf"), hf, directory / "hf/", local_files()), IoError);
  EXPECT_THROW(
      export_model(opened(directory / "m.gguf"), of_type("q8_0"), directory / "m.gguf", local_files()),
      IoError);
  EXPECT_EQ(read_text(directory / "hf" / "model.safetensors"), before);
  EXPECT_NO_THROW(export_model(opened(directory / "m.gguf"), hf, directory / "hf", local_files()));
}

// An instruct model ends its turns with tokens that its tokenizer does not name: without them it never stops.
TEST(ExportModel, KeepsTheEndsOfTurnsAndHowToSample) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(8), directory / "stage", 1, std::nullopt);
  ExportOptions hf = of_type("f32");
  hf.format = "hf";
  export_model(opened(directory / "stage"), hf, directory / "hf", local_files());
  const std::string said =
      R"({"do_sample": true, "eos_token_id": [7, 8, 9], "pad_token_id": 0, "top_p": 0.95})";
  write_durably(local_files(), directory / "hf" / "generation_config.json", said);
  const OpenedModel model = opened(directory / "hf");
  const std::vector<int32_t> ends = {7, 8, 9};
  EXPECT_EQ(model.ends(), ends);

  export_model(model, hf, directory / "again", local_files());
  formats::Json expected = formats::parse_json(said, "");
  expected["bos_token_id"] = nullptr;  // none: the tokenizer's word, in config.json too
  EXPECT_EQ(formats::read_json(directory / "again" / "generation_config.json"), expected);
  const formats::Json config = formats::read_json(directory / "again" / "config.json");
  EXPECT_EQ(config.at("eos_token_id"), expected.at("eos_token_id"));
  EXPECT_EQ(config.at("pad_token_id"), 0);

  export_model(model, of_type("f32"), directory / "m.gguf", local_files());
  EXPECT_EQ(formats::GgufFile(directory / "m.gguf").integer("tokenizer.ggml.eot_token_id"), 9);
  EXPECT_EQ(opened(directory / "m.gguf").ends(), ends);
  export_model(opened(directory / "m.gguf"), hf, directory / "back", local_files());
  EXPECT_EQ(opened(directory / "back").ends(), ends);
}

}  // namespace retort::artifacts
