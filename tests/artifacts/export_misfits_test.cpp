#include "artifacts/export_misfits.h"

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_formats.h"
#include "core/error.h"
#include "models/family.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> said(const ExportOptions& options, const ExportSubject& subject) {
  std::vector<std::string> out;
  for (const Misfit& misfit : export_misfits(options, subject))
    out.push_back(misfit.part + ": " + misfit.why);
  return out;
}

ExportOptions options_of(const std::string& format, const std::string& type = "own") {
  ExportOptions options;
  options.format = format;
  options.type = type;
  return options;
}

models::DecoderSpec small(const std::string& family = "llama") {
  models::DecoderSpec spec = models::families().at(family).defaults;
  spec.vocabulary = 256;
  spec.context = 32;
  spec.layers = 1;
  spec.width = 64;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 32;
  spec.ffn_width = 64;
  return spec;
}

// Byte-level, cut by a pattern that no GGUF has a name for.
void write_tokenizer(const Path& folder) {
  const auto bytes = data::make_byte_tokenizer()->hf_files();
  formats::Json json = formats::parse_json(bytes.at("tokenizer.json"), "bytes");
  json["model"]["vocab"]["<|end|>"] = 256;
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "[xyz]+"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << json.dump();
}

}  // namespace

TEST(ExportMisfits, NothingKnownIsNoMisfit) {
  for (const ExportFormat& format : export_formats())
    EXPECT_THAT(said(options_of(format.name), {}), IsEmpty()) << format.name;
}

TEST(ExportMisfits, AModelOfOurOwnIsACheckpointOnly) {
  const models::DecoderSpec spec = models::families().at("stlm").defaults;
  EXPECT_THAT(said(options_of("gguf"), {&spec}),
              ElementsAre("format: a stlm model cannot be written as a GGUF: llama.cpp has no such "
                          "architecture; it stays a checkpoint of retort"));
  EXPECT_THAT(said(options_of("hf"), {&spec}),
              ElementsAre(HasSubstr("transformers has no such architecture")));
  EXPECT_THAT(said(options_of("gptq"), {&spec}),
              ElementsAre(HasSubstr("cannot be written as a gptq folder")));
  EXPECT_THAT(said(options_of("checkpoint"), {&spec}), IsEmpty());
  EXPECT_THAT(said(options_of("gguf"), {&models::families().at("bitnet").defaults}),
              ElementsAre(HasSubstr("[gguf] llama.cpp's architecture bitnet computes SiLU")));
}

TEST(ExportMisfits, TypesAreThoseOfTheRow) {
  EXPECT_THAT(said(options_of("hf", "bf16"), {}), IsEmpty());
  EXPECT_THAT(said(options_of("hf", "q4_0"), {}),
              ElementsAre("type: an HF folder holds f32, f16 or bf16, got q4_0"));
  EXPECT_THAT(said(options_of("gptq", "bf16"), {}),
              ElementsAre("type: a gptq folder holds f32 or f16, got bf16"));
  EXPECT_THAT(said(options_of("checkpoint", "f16"), {}),
              ElementsAre("type: a checkpoint holds f32, got f16"));
  EXPECT_THAT(said(options_of("gguf", "q4_k"), {}), IsEmpty());
  ExportOptions rounded = options_of("gguf");
  rounded.activations = true;
  EXPECT_THAT(said(rounded, {}), ElementsAre(HasSubstr("activations: only compressed-tensors")));
  EXPECT_THROW(export_misfits(options_of("ggml"), {}), ConfigError);
}

TEST(ExportMisfits, RowsDivideIntoBlocksWithoutAdapters) {
  models::DecoderSpec spec = small();
  spec.share_ffn = true;
  spec.lora_rank = 4;  // merged: its rows of 4 are in no file
  EXPECT_THAT(said(options_of("gguf", "q8_0"), {&spec}), IsEmpty());
  EXPECT_THAT(
      said(options_of("gguf", "q4_k"), {&spec}),
      ElementsAre(AllOf(HasSubstr("type: embed.weight has rows of 64"), HasSubstr("q8_0 takes them"))));
}

TEST(ExportMisfits, GridsAreKnownOrNot) {
  std::optional<quantize::QuantizeOptions> grids;
  for (const ExportFormat& format : export_formats())
    EXPECT_EQ(said(options_of(format.name), {nullptr, nullptr, &grids}).size(),
              format.packs == Packs::kMatrices ? 1u : 0u)
        << format.name;
  grids.emplace().weights.grid = "nvfp4";
  EXPECT_THAT(said(options_of("gguf"), {nullptr, nullptr, &grids}),
              ElementsAre("weights: a GGUF cannot hold grid nvfp4; format compressed-tensors can"));
  EXPECT_THAT(said(options_of("gguf", "f16"), {nullptr, nullptr, &grids}), IsEmpty());
  models::DecoderSpec spec = small();
  spec.share_ffn = true;
  spec.lora_rank = 4;
  grids->weights.grid = "q4_0";
  EXPECT_THAT(said(options_of("gguf"), {&spec, nullptr, &grids}), ElementsAre(HasSubstr("on no grid")));
}

// What a folder's layout says of the model as a whole, before a weight is there.
TEST(ExportMisfits, MatricesThatAFolderCannotPack) {
  std::optional<quantize::QuantizeOptions> grids;
  grids.emplace().weights.grid = "int8_row";
  const models::DecoderSpec llama = small();
  models::DecoderSpec gpt2 = small("gpt2");
  for (const char* format : {"compressed-tensors", "gptq"}) {
    EXPECT_THAT(said(options_of(format), {&llama, nullptr, &grids}), IsEmpty()) << format;
    EXPECT_THAT(said(options_of(format), {&gpt2, nullptr, &grids}),
                ElementsAre(HasSubstr("transformer.h.0.attn.c_attn.weight is no Linear in a gpt2 folder")));
  }
  grids->weights.grid = "fp8";
  EXPECT_THAT(said(options_of("compressed-tensors"), {&gpt2, nullptr, &grids}),
              ElementsAre(AllOf(HasSubstr("is no Linear"), HasSubstr("format hf holds its values"))))
      << "a GGUF holds no such grid";
  grids->weights.grid = "int4_g128";  // of rows of 64
  grids->fallback = "none";
  EXPECT_THAT(said(options_of("compressed-tensors"), {&llama, nullptr, &grids}),
              ElementsAre(HasSubstr("the model is on no grid; write format hf")));
  EXPECT_THAT(said(options_of("gptq"), {&llama, nullptr, &grids}),
              ElementsAre(HasSubstr("every matrix must be on the grid")));
}

// llama.cpp loads a file without tokens when it says so.
TEST(ExportMisfits, AModelWithoutATokenizerIsAGgufWithoutAVocabulary) {
  const testing::TemporaryDirectory directory;
  models::DecoderSpec spec = small();
  spec.vocabulary = 300;  // 256 would be bytes
  export_model(new_model(spec, 1, "test"), options_of("gguf"), directory / "out.gguf", local_files());
  const formats::GgufFile file(directory / "out.gguf");
  EXPECT_EQ(file.text("tokenizer.ggml.model"), "no_vocab");
  EXPECT_EQ(file.integer("llama.vocab_size"), 300);
  Log quiet(stderr, "", true);
  const OpenedModel back = open_model(directory / "out.gguf", quiet);
  EXPECT_EQ(back.tokenizer, nullptr);
  EXPECT_EQ(back.decoder->vocabulary(), 300);
}

// And export_model() refuses by the same list, before it writes.
TEST(ExportMisfits, ATokenizerThatTheFormatCannotName) {
  const testing::TemporaryDirectory directory;
  write_tokenizer(directory / "tokenizer");
  OpenedModel model = new_model(small(), 1, "test");
  model.tokenizer = data::open_tokenizer(directory / "tokenizer");
  for (const ExportFormat& format : export_formats()) {
    if (format.packs == Packs::kMatrices) continue;  // it has no codes
    const auto misfits = said(options_of(format.name), {nullptr, model.tokenizer.get()});
    if (format.name != "gguf") {
      EXPECT_THAT(misfits, IsEmpty()) << format.name;
      continue;
    }
    ASSERT_THAT(misfits, ElementsAre(HasSubstr("tokenizer: ")));
    EXPECT_THAT(misfits[0], HasSubstr("names its pre-tokenizer"));
    try {
      export_model(model, options_of(format.name), directory / "out.gguf", local_files());
      ADD_FAILURE() << "written";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(misfits[0].substr(std::string("tokenizer: ").size())));
    }
    EXPECT_FALSE(std::filesystem::exists(directory / "out.gguf"));
  }
}

}  // namespace retort::artifacts
