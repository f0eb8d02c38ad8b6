#include "artifacts/open_model.h"

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/error.h"
#include "formats/ggml_blocks.h"
#include "models/hf_folder.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::HasSubstr;

std::string error_of(const Path& path) {
  Log log(stderr, "", true);
  try {
    open_model(path, log);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(OpenModel, OpensCheckpointsAndTheDirectoriesAroundThem) {
  testing::TemporaryDirectory directory;
  const auto model = tiny_model(1);
  const Path stage = directory / "stage";
  save_tiny(*model, stage, 10, std::nullopt);
  Log log(stderr, "", true);
  for (const Path& path :
       {stage / "checkpoints" / "step_00000010", stage / "checkpoints", stage, directory.path()}) {
    const OpenedModel opened = open_model(path, log);
    EXPECT_EQ(opened.decoder->spec(), model->spec());
    EXPECT_EQ(opened.need_tokenizer().name(), "bytes");
    for (const auto& p : model->parameters().unique())
      EXPECT_TRUE(testing::same_bits(opened.decoder->parameters().at(p.name).working.detach(), p.master))
          << p.name;
  }
  save_tiny(*model, directory / "other", 10, std::nullopt);
  EXPECT_THAT(error_of(directory.path()), HasSubstr("holds several models, name one"));
}

TEST(OpenModel, AQuantizedCheckpointIsOpenedOnItsGrid) {
  testing::TemporaryDirectory directory;
  const auto model = tiny_model(2);
  quantize::QuantizeOptions options;
  options.from_step = 5;
  save_tiny(*model, directory / "late", 10, options);
  save_tiny(*model, directory / "early", 5, options);  // all of its steps came before the grid
  Log log(stderr, "", true);
  const OpenedModel late = open_model(directory / "late", log);
  ASSERT_NE(late.grids, nullptr);
  EXPECT_TRUE(late.grids->enabled());
  const auto& q = late.decoder->parameters().at("layers.0.attn.q.weight");
  const at::Tensor on_grid = formats::unpack(formats::pack(formats::GgmlType::Q4_0, q.master));
  EXPECT_TRUE(testing::same_bits(q.working.detach(), on_grid));
  const OpenedModel early = open_model(directory / "early", log);
  EXPECT_TRUE(testing::same_bits(early.decoder->parameters().at("layers.0.attn.q.weight").working.detach(),
                                 q.master));
}

TEST(OpenModel, OpensWhatItExports) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(3), directory / "stage", 10, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel model = open_model(directory / "stage", log);
  ExportOptions gguf, hf;
  hf.format = "hf";
  export_model(model, gguf, directory / "model.gguf", local_files());
  export_model(model, hf, directory / "hf", local_files());
  const at::Tensor tokens_BT = at::arange(40).view({2, 20});
  const at::NoGradGuard no_grad;
  const at::Tensor h_BTD = model.decoder->hidden({tokens_BT, {}, {}});
  for (const char* name : {"model.gguf", "hf"}) {
    const OpenedModel back = open_model(directory / name, log);
    EXPECT_EQ(back.need_tokenizer().name(), "bytes") << name;
    EXPECT_TRUE(back.ends().empty()) << name;
    EXPECT_TRUE(testing::same_bits(back.decoder->hidden({tokens_BT, {}, {}}), h_BTD)) << name;
  }
}

TEST(OpenModel, ARunsModelIsNoneThatWasPutAside) {
  testing::TemporaryDirectory directory;
  for (const char* stage : {"stage.replaced", "stage", "stage.replaced.2"})
    save_tiny(*tiny_model(3), directory / stage, 10, std::nullopt);
  Log log(stderr, "", true);
  EXPECT_THAT(open_model(directory.path(), log).source, ::testing::HasSubstr("stage/checkpoints"));
}

// A checkpoint, an export and the shards' own copy tokenize alike when the file they came from is gone.
TEST(OpenModel, ACheckpointBringsItsTokenizer) {
  testing::TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "given");
  std::ofstream(directory / "given" / "tokenizer.json") << R"({"model": {"type": "BPE",
    "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": [["a", "b"]]},
    "added_tokens": [{"id": 4, "content": "</s>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"}})";
  const auto given = data::open_tokenizer(directory / "given");
  const auto model = tiny_model(3);
  train::CheckpointContent content;
  content.step = 7;
  content.recipe = "# tiny\n";
  content.extra = model_facts({model->spec(), given->name()});
  content.tokenizer = data::tokenizer_files(*given);
  for (const models::Parameter& p : model->parameters().unique())
    content.weights.emplace_back(p.name, p.master);
  train::save_checkpoint(local_files(), directory / "stage" / "checkpoints", content, 1);
  std::filesystem::remove_all(directory / "given");
  Log log(stderr, "", true);
  const OpenedModel opened = open_model(directory / "stage", log);
  const std::vector<int32_t> ids = {2, 3, 2, 4};
  EXPECT_EQ(opened.need_tokenizer().fingerprint(), given->fingerprint());
  EXPECT_EQ(opened.need_tokenizer().encode("ab ab</s>"), ids);
  ExportOptions gguf, hf;
  hf.format = "hf";
  export_model(opened, gguf, directory / "model.gguf", local_files());
  export_model(opened, hf, directory / "hf", local_files());
  export_model(opened, {.format = "checkpoint"}, directory / "own", local_files());
  for (const char* name : {"model.gguf", "hf", "own"}) {
    const OpenedModel back = open_model(directory / name, log);
    EXPECT_EQ(back.need_tokenizer().encode("ab ab</s>"), ids) << name;
    EXPECT_EQ(back.need_tokenizer().separator(), 4) << name;
  }
  EXPECT_EQ(formats::read_json(directory / "hf" / "config.json").at("eos_token_id"), 4);
}

TEST(OpenModel, OpensOtherPeoplesFiles) {
  RETORT_NEEDS_TEST_DATA();
  const Path stories = testing::test_data() / "models" / "stories260K";
  Log log(stderr, "", true);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens_BT = at::tensor({1, 403, 407, 261, 378}, at::kLong).view({1, 5});
  std::vector<at::Tensor> hidden;
  for (const char* name : {"stories260K.bin", "stories260K-f32.gguf", "hf"}) {
    const OpenedModel opened = open_model(stories / name, log);
    hidden.push_back(opened.decoder->hidden({tokens_BT, {}, {}}));
    EXPECT_LT(testing::relative_error(hidden.back(), hidden.front()), 1e-5) << name;
    if (std::string(name).ends_with(".bin")) {
      EXPECT_THROW(opened.need_tokenizer(), DataError);  // its vocabulary is another file
      continue;
    }
    const std::vector<int32_t> ids = {403, 407, 261, 378};
    EXPECT_EQ(opened.need_tokenizer().encode("Once upon a time"), ids) << name;
    EXPECT_EQ(opened.need_tokenizer().prefix(), std::vector<int32_t>{1}) << name;
  }
}

// Rows after the tokenizer's ids take no part, and a model that was trained with them is written without.
TEST(OpenModel, KnowsThePaddingOfAVocabulary) {
  testing::TemporaryDirectory directory;
  models::DecoderSpec spec = tiny_model(4)->spec();
  spec.vocabulary = 320;
  models::Decoder padded(spec);
  models::initialise(padded.parameters(), "normal", 0.1, 1);
  save_tiny(padded, directory / "stage", 1, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel opened = open_model(directory / "stage", log);
  EXPECT_EQ(opened.decoder->vocabulary(), 320);
  EXPECT_EQ(opened.decoder->tokens(), 256);
  for (const char* format : {"gguf", "hf", "checkpoint"}) {
    ExportOptions options;
    options.format = format;
    const Path out = directory / format;
    export_model(opened, options, out, local_files());
    const OpenedModel back = open_model(out, log);
    EXPECT_EQ(back.decoder->vocabulary(), format == std::string("checkpoint") ? 320 : 256) << format;
    EXPECT_EQ(back.decoder->tokens(), 256) << format;
    EXPECT_EQ(back.need_tokenizer().vocabulary(), 256) << format;
  }
}

// As Gemma 3 is published: an image's token, and no row for it.
TEST(OpenModel, AnAddedTokenWithoutARowIsDroppedAloud) {
  RETORT_NEEDS_TEST_DATA();
  const Path path = testing::test_data() / "faults" / "hf" / "gemma3_image_token";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  ::testing::internal::CaptureStderr();
  Log log;
  const OpenedModel opened = open_model(path, log);
  EXPECT_THAT(
      ::testing::internal::GetCapturedStderr(),
      HasSubstr("added token <image_soft_token> of its tokenizer has no row in its embedding of 256"));
  const data::Tokenizer& tokenizer = opened.need_tokenizer();
  EXPECT_EQ(tokenizer.vocabulary(), 256);
  EXPECT_NO_THROW(tokenizer.encode("plain text"));
  EXPECT_THROW(tokenizer.encode("an <image_soft_token>"), DataError);
  testing::TemporaryDirectory directory;
  for (const char* format : {"gguf", "hf"}) {
    ExportOptions options;
    options.format = format;
    export_model(opened, options, directory / format, local_files());
    EXPECT_EQ(open_model(directory / format, log).decoder->vocabulary(), 256) << format;
  }
}

// transformers gives such a token the next id, which a model may have no row for.
TEST(OpenModel, ANamedTokenThatTheVocabularyLacksFitsOrIsDroppedAloud) {
  testing::TemporaryDirectory directory;
  for (const int64_t rows : {256, 320}) {
    models::DecoderSpec spec = tiny_model(4)->spec();
    spec.vocabulary = rows;
    models::Decoder model(spec);
    models::initialise(model.parameters(), "normal", 0.02, 1);
    models::HfExtras extras;
    extras.files = data::make_byte_tokenizer()->hf_files();
    extras.files["tokenizer_config.json"] = R"({"pad_token": "[PAD]"})";
    models::IdentityMap identity;
    const Path folder = directory / std::to_string(rows);
    models::save_hf_folder(local_files(), folder, model, identity, at::kFloat, extras);
    ::testing::internal::CaptureStderr();
    Log log;
    const OpenedModel opened = open_model(folder, log);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("added token [PAD] of its tokenizer has no row in its embedding of 256") != said.npos,
              rows == 256)
        << said;
    EXPECT_EQ(opened.decoder->tokens(), std::min<int64_t>(rows, 257));
    EXPECT_EQ(opened.need_tokenizer().vocabulary(), std::min<int64_t>(rows, 257));
  }
}

TEST(OpenModel, RefusesATokenizerThatTheEmbeddingHasNoRowsFor) {
  testing::TemporaryDirectory directory;
  models::DecoderSpec spec = tiny_model(4)->spec();
  spec.vocabulary = 255;
  models::Decoder small(spec);
  models::initialise(small.parameters(), "normal", 0.02, 1);
  models::HfExtras extras;
  extras.files = data::make_byte_tokenizer()->hf_files();
  models::IdentityMap identity;
  models::save_hf_folder(local_files(), directory / "hf", small, identity, at::kFloat, extras);
  EXPECT_THAT(error_of(directory / "hf"),
              HasSubstr("its tokenizer bytes has 256 tokens, but its embedding 255 rows"));
}

// A grid that a checkpoint kept as a recipe's text is the grid that it keeps as JSON now.
TEST(OpenModel, OlderCheckpointsOpenOnTheSameGrids) {
  testing::TemporaryDirectory directory;
  const auto model = tiny_model(9);
  quantize::QuantizeOptions options;
  options.weights.grid = "q8_0";
  options.except = {{"layers.0.*", "none"}, {"*.ffn.up.weight", "int8_row"}};
  save_tiny(*model, directory / "new", 3, options);
  train::CheckpointContent content = tiny_content(*model, 3, options);
  content.extra["quantize"] =
      "weights:\n  grid: q8_0\nembedding:\n  grid: q8_0\nhead:\n  grid: q8_0\nexcept:\n"
      "  - match: \"layers.0.*\"\n    grid: none\n  - match: \"*.ffn.up.weight\"\n    grid: int8_row\n"
      "fallback: refuse\nactivations: none\nfrom_step: 0\nuntil_step: 0\n";
  train::save_checkpoint(local_files(), directory / "old" / "checkpoints", content, 1);
  Log log(stderr, "", true);
  const OpenedModel fresh = open_model(directory / "new", log), old = open_model(directory / "old", log);
  EXPECT_TRUE(quantize::same_grids(*fresh.quantize, *old.quantize));
  int on_grid = 0;
  for (const models::Parameter& p : fresh.decoder->parameters().unique()) {
    EXPECT_TRUE(testing::same_bits(p.working.detach(), old.decoder->parameters().at(p.name).working.detach()))
        << p.name;
    on_grid += testing::same_bits(p.working.detach(), p.master) ? 0 : 1;
  }
  EXPECT_GT(on_grid, 3);
  content.extra["quantize"] = "weights:\n  grid: q8\n";
  train::save_checkpoint(local_files(), directory / "bad" / "checkpoints", content, 1);
  EXPECT_THAT(error_of(directory / "bad"),
              ::testing::AllOf(HasSubstr("manifest.json: quantize: weights.grid must be one of"),
                               HasSubstr("got \"q8\"")));
}

TEST(OpenModel, OfASpecIsTheSameForOneSeed) {
  const models::DecoderSpec spec = tiny_model(1)->spec();
  const OpenedModel one = new_model(spec, 5, "a"), two = new_model(spec, 5, "b"),
                    other = new_model(spec, 6, "c");
  const auto weights = [](const OpenedModel& model) {
    return model.decoder->parameters().at("layers.1.attn.q.weight").working.detach();
  };
  EXPECT_TRUE(testing::same_bits(weights(one), weights(two)));
  EXPECT_FALSE(testing::same_bits(weights(one), weights(other)));
  EXPECT_EQ(one.need_tokenizer().name(), "bytes");
  models::DecoderSpec wide = spec;
  wide.vocabulary = 300;
  EXPECT_THROW(new_model(wide, 5, "d").need_tokenizer(), DataError);
}

TEST(OpenModel, SaysWhatIsWrong) {
  testing::TemporaryDirectory directory;
  EXPECT_THAT(error_of("/nowhere/model"), HasSubstr("/nowhere/model: no such model"));
  EXPECT_THAT(error_of(directory.path()), HasSubstr("holds no model"));
  EXPECT_THAT(error_of("/etc/passwd"), HasSubstr("must be a GGUF"));
}

// A part of a GGUF that llama.cpp split holds keys of its own and a share of the tensors.
TEST(OpenModel, NamesAPartOfASplitGguf) {
  testing::TemporaryDirectory directory;
  const Path part = directory / "m-00002-of-00003.gguf";
  formats::write_gguf(local_files(), part, {{"split.no", uint32_t{1}}, {"split.count", uint32_t{3}}},
                      {{"a.weight", formats::pack(formats::GgmlType::F32, at::ones({2, 32}))}});
  EXPECT_THAT(error_of(part), HasSubstr("is part 2 of 3 of a split GGUF, which is not read; join them"));
}

// By its first bytes, not by its name.
TEST(OpenModel, AGgufOfAnyName) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(3), directory / "stage", 10, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel model = open_model(directory / "stage", log);
  export_model(model, {}, directory / "m.gguf", local_files());
  std::filesystem::rename(directory / "m.gguf", directory / "blob");
  EXPECT_EQ(open_model(directory / "blob", log).decoder->parameters().expanded(),
            model.decoder->parameters().expanded());
}

}  // namespace retort::artifacts
