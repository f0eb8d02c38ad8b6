// Where templates are kept, which one is meant, and what `retort data render` shows of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/templates/lexer.h"
#include "data/templates/opened.h"
#include "data/templates/render.h"
#include "data/templates/shipped.h"
#include "data/templates/store.h"
#include "tests/data/chat_data.h"
#include "tests/data/packing.h"

namespace retort::data {
namespace {

using formats::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;
using testing::write_file;

const Json kHi = Json::parse(R"([{"role": "user", "content": "hi"}])");
const Json kAdd = Json::parse(R"([{"type": "function", "function": {"name": "add", "parameters": {}}}])");

class TemplateStore : public ::testing::Test {
 protected:
  Path write(const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories((directory_ / name).parent_path());
    return write_file(directory_ / name, bytes);
  }
  std::vector<std::string> names(const StoredTemplates& stored) {
    std::vector<std::string> out;
    for (const auto& [name, text] : stored.templates) out.push_back(name + "=" + text);
    return out;
  }
  TemporaryDirectory directory_;
};

}  // namespace

TEST_F(TemplateStore, EveryGoldenFolderGivesTransformersTemplates) {
  RETORT_NEEDS_TEST_DATA();
  size_t folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::test_data() / "chat" / "stores")) {
    SCOPED_TRACE(entry.path().string());
    const Json expected = formats::read_json(entry.path() / "expected.json");
    const StoredTemplates stored = read_templates(entry.path());
    ASSERT_EQ(stored.templates.size(), expected.at("templates").size());
    for (const auto& [name, text] : stored.templates)
      EXPECT_EQ(jinja::Lexer::prepared(text),
                jinja::Lexer::prepared(expected.at("templates").at(name).get<std::string>()));
    EXPECT_EQ(stored.special,
              Json::parse(R"({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})"));
    for (const char* kind : {"plain", "tools", "tools-empty", "named-other"}) {
      if (!expected.contains(kind)) continue;
      const Json tools = std::string(kind) == "tools"         ? kAdd
                         : std::string(kind) == "tools-empty" ? Json::array()
                                                              : Json();
      const RenderOptions options{.source = entry.path().string(),
                                  .name = std::string(kind) == "named-other" ? "other" : "",
                                  .messages = kHi,
                                  .tools = tools};
      if (expected.at(kind).contains("text")) {
        EXPECT_EQ(render_chat(options).text, expected.at(kind).at("text").get<std::string>()) << kind;
      } else {
        EXPECT_THROW(render_chat(options), DataError) << kind;
      }
    }
    ++folders;
  }
  EXPECT_EQ(folders, 12u);
}

TEST_F(TemplateStore, FilesHideWhatTheConfigurationSays) {
  write("m/tokenizer_config.json",
        R"({"chat_template": "config", "eos_token": {"content": "</s>"}, "pad_token": null})");
  write("m/special_tokens_map.json", R"({"bos_token": "<s>", "eos_token": "other"})");
  write("m/generation_config.json", R"({"eos_token_id": [2, 7]})");
  StoredTemplates stored = read_templates(directory_ / "m");
  EXPECT_THAT(names(stored), ElementsAre("default=config"));
  EXPECT_EQ(stored.special, Json::parse(R"({"eos_token": "</s>", "bos_token": "<s>"})"));
  EXPECT_THAT(stored.ends, ElementsAre(2, 7));
  write("m/additional_chat_templates/rag.jinja", "rag");
  stored = read_templates(directory_ / "m");
  EXPECT_THAT(names(stored), ElementsAre("rag=rag"));
  EXPECT_THROW(choose_template(stored, "", false), DataError);
  EXPECT_EQ(choose_template(stored, "rag", false), "rag");
  write("m/chat_template.jinja", "file");
  stored = read_templates(directory_ / "m");
  EXPECT_THAT(names(stored), ElementsAre("default=file", "rag=rag"));
  EXPECT_EQ(choose_template(stored, "", true), "file");
  try {
    choose_template(stored, "tool", false);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("it has default, rag"));
  }
  stored = read_templates(directory_ / "m" / "chat_template.jinja");
  EXPECT_EQ(stored.special.at("bos_token"), "<s>") << "of the folder that the file lies in";
}

TEST_F(TemplateStore, GgufFilesHoldThemByKey) {
  const formats::GgufMetadata metadata = {
      {"tokenizer.chat_template", std::string("{{ bos_token }}d")},
      {"tokenizer.chat_templates", std::vector<std::string>{"tool_use", "my.own"}},
      {"tokenizer.chat_template.tool_use", std::string("t{{ tools|length }}")},
      {"tokenizer.chat_template.my_own", std::string("o{{ eos_token }}")},
      {"tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "</s>", "<|eot|>"}},
      {"tokenizer.ggml.bos_token_id", uint32_t{0}},
      {"tokenizer.ggml.eos_token_id", uint32_t{1}},
      {"tokenizer.ggml.eot_token_id", uint32_t{2}},
      {"tokenizer.ggml.padding_token_id", uint32_t{99}}};
  formats::write_gguf(local_files(), directory_ / "model.gguf", metadata, {});
  for (const Path& path : {directory_ / "model.gguf", directory_.path()}) {
    const StoredTemplates stored = read_templates(path);
    EXPECT_THAT(names(stored), ElementsAre("default={{ bos_token }}d", "tool_use=t{{ tools|length }}",
                                           "my.own=o{{ eos_token }}"));
    EXPECT_EQ(stored.special, Json::parse(R"({"bos_token": "<s>", "eos_token": "</s>"})"));
    EXPECT_THAT(stored.ends, ElementsAre(1, 2));
    EXPECT_EQ(render_chat({.source = path.string(), .messages = kHi}).text, "<s>d");
    EXPECT_EQ(render_chat({.source = path.string(), .messages = kHi, .tools = kAdd}).text, "t1");
  }
}

TEST(RenderChat, LeavesTheLastMessageOpenToBeGoneOnWith) {
  const Json talk = {{{"role", "user"}, {"content", "Is it?"}},
                     {{"role", "assistant"}, {"content", "It is"}}};
  RenderOptions options{.source = "chatml", .messages = talk, .continue_message = true};
  const RenderedChat open = render_chat(options);
  EXPECT_TRUE(open.text.ends_with("assistant\nIt is")) << open.text;
  EXPECT_TRUE(open.spans.empty());
  options.generation_prompt = true;
  EXPECT_THROW(render_chat(options), ConfigError);
}

TEST_F(TemplateStore, AddressesThatLeadNowhereAreNamed) {
  EXPECT_THROW(open_template("chatlm", "", false), ConfigError);
  EXPECT_THROW(open_template("no/such.jinja", "", false), IoError);
  EXPECT_THROW(open_template(directory_.path().string(), "", false), DataError);  // an empty folder
  EXPECT_TRUE(open_template("gemma", "", false).shipped);
}

TEST_F(TemplateStore, EveryShippedTemplateIsEmbeddedAndRead) {
  EXPECT_EQ(shipped_texts().size(), shipped_templates().size());
  for (const ShippedTemplate& row : shipped_templates()) {
    const ChatTemplate form(row.name, shipped_text(row.name));
    EXPECT_TRUE(form.has_generation()) << row.name;
    EXPECT_FALSE(form.asks_date()) << row.name;
  }
}

TEST_F(TemplateStore, RenderingShowsTextIdsAndSpans) {
  const Json talk =
      Json::parse(R"([{"role": "user", "content": "é"}, {"role": "assistant", "content": "ü"}])");
  RenderOptions options{.source = "chatml", .messages = talk, .generation_prompt = true};
  EXPECT_EQ(
      to_json(render_chat(options)),
      Json::parse(
          R"({"text": "<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\nü<|im_end|>\n<|im_start|>assistant\n",
                            "ids": null, "spans": [[51, 62]]})"));
  const std::string source =
      write("x.jinja", "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
          .string();
  options = {.source = source, .messages = talk, .bos = "<s>", .eos = "</s>"};
  const RenderedChat shown = render_chat(options);
  EXPECT_EQ(shown.text, "<s>é</s>ü</s>");
  EXPECT_THAT(shown.spans, ElementsAre(std::pair(8, 13)));
  EXPECT_FALSE(shown.ids.has_value());
  const std::string dated = write("d.jinja", "{{ strftime_now('%d %B %Y') }}").string();
  EXPECT_EQ(render_chat({.source = dated, .messages = kHi, .date = "2026-02-03"}).text, "03 February 2026");
}

}  // namespace retort::data
