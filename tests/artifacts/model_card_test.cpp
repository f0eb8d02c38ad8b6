#include "artifacts/model_card.h"

#include <gmock/gmock.h>

#include "artifacts/export_formats.h"
#include "artifacts/modelfile.h"
#include "core/error.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "formats/gguf.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string card_of(const Origin& origin, const CardFacts& facts, const formats::Json& training) {
  return model_card({.origin = origin,
                     .facts = facts,
                     .spec = tiny_model(1)->spec(),
                     .parameters = 12345,
                     .training = training,
                     .library = "transformers",
                     .relation = "quantized"});
}

OpenedModel opened_tiny(const Path& stage) {
  save_tiny(*tiny_model(8), stage, 1, std::nullopt);
  Log quiet(stderr, "", true);
  return open_model(stage, quiet);
}

}  // namespace

TEST(ModelCard, SaysWhatIsKnown) {
  const formats::Json training = {{"tokens", 2048},
                                  {"sources", {{{"name", "/home/me/secret/tales"}, {"epochs", 1.5}}}}};
  const Origin origin{
      .license = "mit", .license_name = {}, .license_link = {}, .base_model = "a/b", .start = {}};
  CardFacts facts{.name = "tales | and\nmore", .figures = {}, .tokens = 4096};
  facts.figures = {{.name = "arc_easy.acc", .value = 0.5, .error = 0.125},
                   {.name = "perplexity", .value = 3}};
  const std::string card = card_of(origin, facts, training);
  EXPECT_THAT(card, StartsWith("---\nlicense: \"mit\"\nbase_model: \"a/b\"\nbase_model_relation: "
                               "\"quantized\"\nlibrary_name: \"transformers\"\npipeline_tag: "
                               "\"text-generation\"\n---\n\n# tales   and more\n\n"));
  EXPECT_THAT(card,
              HasSubstr("A llama model of 12,345 parameters: 2 layers of width 32, 64 tokens of context."));
  EXPECT_THAT(card, HasSubstr("Trained from a/b on 4,096 tokens in all."));
  EXPECT_THAT(card, HasSubstr("| tales "));
  EXPECT_THAT(card, Not(HasSubstr("secret")));
  EXPECT_THAT(card, HasSubstr("| arc_easy.acc | 0.5000 |         0.1250 |"));
  EXPECT_THAT(card, HasSubstr("| perplexity   | 3.0000 |              - |"));
  EXPECT_TRUE(is_model_card(card));
}

TEST(ModelCard, IsSilentOfWhatIsNot) {
  const std::string card = card_of({}, {}, formats::Json::object());
  EXPECT_THAT(card,
              StartsWith("---\nlibrary_name: \"transformers\"\npipeline_tag: \"text-generation\"\n---\n"));
  for (const char* word : {"license", "base_model", "Training", "Evaluation", "Made from"})
    EXPECT_THAT(card, Not(HasSubstr(word)));
  EXPECT_THAT(
      card_of({.license = {}, .license_name = {}, .license_link = {}, .base_model = {}, .start = "x.gguf"},
              {}, formats::Json::object()),
      HasSubstr("Made from x.gguf."));
  EXPECT_THAT(card_of({}, {}, {{"tokens", 9}}),
              HasSubstr("Trained from random weights; its last stage read 9 tokens."));
}

// Every form that leaves carries them, and gives them back where it has a place for them.
TEST(ModelCard, FoldersAndGgufsCarryWhereTheyComeFrom) {
  testing::TemporaryDirectory directory;
  OpenedModel model = opened_tiny(directory / "stage");
  model.origin = {.license = "apache-2.0",
                  .license_name = {},
                  .license_link = {},
                  .base_model = "Some/Model",
                  .start = {}};
  Log quiet(stderr, "", true);
  for (const char* format : {"hf", "gguf"}) {
    const Path out = directory / fmt::format("of-{}", format);
    export_model(model, {.format = format}, out, local_files());
    EXPECT_EQ(open_model(out, quiet).origin, model.origin) << format;
    ExportOptions options{.format = format};
    options.license = "mit", options.base_model = "Other/Model";
    export_model(model, options, out, local_files());
    EXPECT_EQ(open_model(out, quiet).origin.license, "mit") << format;
    EXPECT_EQ(open_model(out, quiet).origin.base_model, "Other/Model") << format;
  }
  export_model(model, {.format = "checkpoint"}, directory / "own", local_files());
  EXPECT_EQ(open_model(directory / "own", quiet).origin, model.origin);
}

TEST(ModelCard, NeverReplacesOneThatAPersonWrote) {
  testing::TemporaryDirectory directory;
  const OpenedModel model = opened_tiny(directory / "stage");
  const Path out = directory / "hf";
  export_model(model, {.format = "hf"}, out, local_files());
  EXPECT_NO_THROW(export_model(model, {.format = "hf"}, out, local_files()));
  write_durably(local_files(), out / "README.md", "# Mine\n");
  EXPECT_THROW(export_model(model, {.format = "hf"}, out, local_files()), IoError);
  EXPECT_THROW(probe_export("--out", "hf", out, ""), IoError);
  EXPECT_EQ(read_text(out / "README.md"), "# Mine\n");
}

TEST(Modelfile, HasAStopForEachEndAndNoTemplate) {
  data::BpeSpec spec;
  spec.name = "test";
  for (const char* text : {"a", "<|im_end|>", "two\nlines", "\"quoted"}) spec.tokens.emplace_back(text);
  spec.chat_template = "{{ messages }}";
  for (const int32_t id : {1, 2, 3})
    spec.added.push_back({.id = id, .text = spec.tokens[static_cast<size_t>(id)], .special = true});
  const auto tokenizer = data::make_bpe_tokenizer(std::move(spec));
  EXPECT_EQ(modelfile("/some/where/m.gguf", tokenizer.get(), {1, 2, 3}),
            "# Written by retort export, for Ollama: ollama create NAME -f m.Modelfile\n"
            "# No TEMPLATE: Ollama goes by the chat template in the GGUF.\n"
            "FROM ./m.gguf\n"
            "PARAMETER stop \"<|im_end|>\"\n"
            "PARAMETER stop \"\"\"two\nlines\"\"\"\n"
            "PARAMETER stop \"\"\"\"quoted\"\"\"\n");
  EXPECT_THAT(modelfile("m.gguf", nullptr, {}), HasSubstr("# No TEMPLATE: the model has no chat template"));
}

TEST(Modelfile, LiesBesideTheGgufAndReplacesItsOwnKindOnly) {
  testing::TemporaryDirectory directory;
  const OpenedModel model = opened_tiny(directory / "stage");
  ExportOptions options{.format = "gguf"};
  options.ollama = true;
  export_model(model, options, directory / "m.gguf", local_files());
  export_model(model, options, directory / "m.gguf", local_files());
  EXPECT_THAT(read_text(directory / "m.Modelfile"), HasSubstr("FROM ./m.gguf\n"));
  write_durably(local_files(), directory / "m.Modelfile", "FROM llama3\n");
  EXPECT_THROW(export_model(model, options, directory / "m.gguf", local_files()), IoError);
  options.format = "hf";
  EXPECT_THROW(export_model(model, options, directory / "hf", local_files()), ConfigError);
}

}  // namespace retort::artifacts
