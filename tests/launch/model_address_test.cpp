#include "launch/model_address.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "formats/ggml_blocks.h"
#include "launch/export_model.h"
#include "models/hf_folder.h"
#include "tests/recipes/tiny.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::string& address) {
  Log log(stderr, "", true);
  try {
    open_model(address, "", 0, log);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(ModelAddress, OpensCheckpointsAndTheDirectoriesAroundThem) {
  testing::TemporaryDirectory directory;
  const auto model = tiny_model(1);
  const Path stage = directory / "stage";
  save_tiny(*model, stage, 10, std::nullopt);
  Log log(stderr, "", true);
  for (const Path& path :
       {stage / "checkpoints" / "step_00000010", stage / "checkpoints", stage, directory.path()}) {
    const OpenedModel opened = open_model(path.string(), "", 0, log);
    EXPECT_EQ(opened.decoder->spec(), model->spec());
    EXPECT_EQ(opened.need_tokenizer().name(), "bytes");
    for (const auto& p : model->parameters().unique())
      EXPECT_TRUE(testing::same_bits(opened.decoder->parameters().at(p.name).working.detach(), p.master))
          << p.name;
  }
  EXPECT_EQ(resolve_stage("stage:stage", directory.path()), stage.string());
  EXPECT_NO_THROW(open_model("stage:stage", directory.path(), 0, log));
  EXPECT_THROW(open_model("stage:stage", "", 0, log), ConfigError);
  save_tiny(*model, directory / "other", 10, std::nullopt);
  EXPECT_THAT(error_of(directory.path().string()), HasSubstr("holds several models, name one"));
}

TEST(ModelAddress, AQuantizedCheckpointIsOpenedOnItsGrid) {
  testing::TemporaryDirectory directory;
  const auto model = tiny_model(2);
  quantize::QuantizeOptions options;
  options.from_step = 5;
  save_tiny(*model, directory / "late", 10, options);
  save_tiny(*model, directory / "early", 5, options);  // all of its steps came before the grid
  Log log(stderr, "", true);
  const OpenedModel late = open_model((directory / "late").string(), "", 0, log);
  ASSERT_NE(late.quantized(), nullptr);
  const auto& q = late.decoder->parameters().at("layers.0.attn.q.weight");
  const at::Tensor on_grid = formats::unpack(formats::pack(formats::GgmlType::Q4_0, q.master));
  EXPECT_TRUE(testing::same_bits(q.working.detach(), on_grid));
  const OpenedModel early = open_model((directory / "early").string(), "", 0, log);
  EXPECT_TRUE(testing::same_bits(early.decoder->parameters().at("layers.0.attn.q.weight").working.detach(),
                                 q.master));
}

TEST(ModelAddress, OpensWhatItExports) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(3), directory / "stage", 10, std::nullopt);
  Log log(stderr, "", true);
  const OpenedModel model = open_model((directory / "stage").string(), "", 0, log);
  recipes::ExportOptions gguf, hf;
  hf.format = "hf";
  export_model(model, gguf, directory / "model.gguf", local_files());
  export_model(model, hf, directory / "hf", local_files());
  const at::Tensor tokens_BT = at::arange(40).view({2, 20});
  const at::NoGradGuard no_grad;
  const at::Tensor h_BTD = model.decoder->hidden({tokens_BT, {}, {}});
  for (const char* name : {"model.gguf", "hf"}) {
    const OpenedModel back = open_model((directory / name).string(), "", 0, log);
    EXPECT_EQ(back.need_tokenizer().name(), "bytes") << name;
    EXPECT_TRUE(back.ends().empty()) << name;
    EXPECT_TRUE(testing::same_bits(back.decoder->hidden({tokens_BT, {}, {}}), h_BTD)) << name;
  }
}

TEST(ModelAddress, ARunsModelIsNoneThatWasPutAside) {
  testing::TemporaryDirectory directory;
  for (const char* stage : {"stage.replaced", "stage", "stage.replaced.2"})
    save_tiny(*tiny_model(3), directory / stage, 10, std::nullopt);
  Log log(stderr, "", true);
  EXPECT_THAT(open_model(directory.path().string(), "", 0, log).source,
              ::testing::HasSubstr("stage/checkpoints"));
}

// A checkpoint, an export and the shards' own copy tokenize alike when the file they came from is gone.
TEST(ModelAddress, ACheckpointBringsItsTokenizer) {
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
  content.extra = model_facts(model->spec(), given->name(), std::nullopt);
  content.tokenizer = data::tokenizer_files(*given);
  for (const models::Parameter& p : model->parameters().unique())
    content.weights.emplace_back(p.name, p.master);
  train::save_checkpoint(local_files(), directory / "stage" / "checkpoints", content, 1);
  std::filesystem::remove_all(directory / "given");
  Log log(stderr, "", true);
  const OpenedModel opened = open_model((directory / "stage").string(), "", 0, log);
  const std::vector<int32_t> ids = {2, 3, 2, 4};
  EXPECT_EQ(opened.need_tokenizer().fingerprint(), given->fingerprint());
  EXPECT_EQ(opened.need_tokenizer().encode("ab ab</s>"), ids);
  recipes::ExportOptions gguf, hf;
  hf.format = "hf";
  export_model(opened, gguf, directory / "model.gguf", local_files());
  export_model(opened, hf, directory / "hf", local_files());
  for (const char* name : {"model.gguf", "hf"}) {
    const OpenedModel back = open_model((directory / name).string(), "", 0, log);
    EXPECT_EQ(back.need_tokenizer().encode("ab ab</s>"), ids) << name;
    EXPECT_EQ(back.need_tokenizer().separator(), 4) << name;
  }
  EXPECT_EQ(formats::read_json(directory / "hf" / "config.json").at("eos_token_id"), 4);
}

TEST(ModelAddress, OpensOtherPeoplesFiles) {
  RETORT_NEEDS_TEST_DATA();
  const Path stories = testing::test_data() / "models" / "stories260K";
  Log log(stderr, "", true);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens_BT = at::tensor({1, 403, 407, 261, 378}, at::kLong).view({1, 5});
  std::vector<at::Tensor> hidden;
  for (const char* name : {"stories260K.bin", "stories260K-f32.gguf", "hf"}) {
    const OpenedModel opened = open_model((stories / name).string(), "", 0, log);
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

TEST(ModelAddress, RefusesATokenizerThatTheEmbeddingHasNoRowsFor) {
  testing::TemporaryDirectory directory;
  models::DecoderSpec spec = tiny_model(4)->spec();
  spec.vocabulary = 255;
  models::Decoder small(spec);
  models::initialise(small.parameters(), "normal", 0.02, 1);
  models::HfExtras extras;
  extras.files = data::make_byte_tokenizer()->hf_files();
  models::IdentityMap identity;
  models::save_hf_folder(local_files(), directory / "hf", small, identity, at::kFloat, extras);
  EXPECT_THAT(error_of((directory / "hf").string()),
              HasSubstr("its tokenizer bytes has 256 tokens, but its embedding 255 rows"));
}

TEST(ModelAddress, SaysWhatIsWrong) {
  testing::TemporaryDirectory directory;
  EXPECT_THAT(error_of("/nowhere/model"), HasSubstr("/nowhere/model: no such model"));
  EXPECT_THAT(error_of(directory.path().string()), HasSubstr("holds no model"));
  EXPECT_THAT(error_of("preset:gpt2"), HasSubstr("unknown preset \"gpt2\""));
  EXPECT_THAT(error_of("/etc/passwd"), HasSubstr("must be a .gguf"));
}

}  // namespace retort::launch
