#include "data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::TemporaryDirectory;
using retort::testing::write_file;
using retort::testing::zstd_packed;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DocumentsTest : public ::testing::Test {
 protected:
  // Documents as text, what is learned of a conversation between brackets.
  std::vector<std::string> read(const std::string& name, const std::string& bytes,
                                const DocumentOptions& options = {}) {
    const auto reader = open_documents(write_file(directory_ / name, bytes), options);
    std::vector<std::string> out;
    for (Document document; reader->next(document);) {
      out.emplace_back();
      for (const Span& span : document.spans)
        out.back() += options.conversations() && span.learned ? "[" + span.text + "]" : span.text;
    }
    return out;
  }
  template <class E>
  void refuses(const std::string& name, const std::string& bytes, const DocumentOptions& options,
               const ::testing::Matcher<std::string>& message) {
    try {
      read(name, bytes, options);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const E& error) {
      EXPECT_THAT(std::string(error.what()), message);
    }
  }
  TemporaryDirectory directory_;
};

}  // namespace

TEST_F(DocumentsTest, TheNamesEndingSaysTheFormat) {
  for (const auto& [name, format] :
       std::vector<std::pair<std::string, std::string>>{{"a.txt", "text"},
                                                        {"a", "text"},
                                                        {"a.md.gz", "text"},
                                                        {"a.jsonl", "jsonl"},
                                                        {"a.ndjson.xz", "jsonl"},
                                                        {"a.json.zst", "json"},
                                                        {"a.csv.gz", "csv"},
                                                        {"a.tsv", "tsv"},
                                                        {"a.parquet", "parquet"}})
    EXPECT_EQ(format_of(name, {}), format) << name;
  EXPECT_EQ(format_of("a.txt", {.format = "jsonl"}), "jsonl");
}

TEST_F(DocumentsTest, ARecordsFieldIsADocument) {
  EXPECT_THAT(
      read("a.jsonl", "{\"text\":\"one\"}\n{\"text\":\"\"}\n{\"text\":null}\n{\"text\":\"t\\u00fco\"}\n"),
      ElementsAre("one", "t\u00fco"));
  EXPECT_THAT(read("a.csv.zst", zstd_packed("id,body\n1,x\n2,\"y\nz\"\n"), {.field = "body"}),
              ElementsAre("x", "y\nz"));
  refuses<DataError>("a.jsonl", "{\"text\":\"one\"}\n{\"txt\":\"two\"}\n", {},
                     AllOf(HasSubstr("a.jsonl:2"), HasSubstr("field \"text\" is missing"), HasSubstr("txt")));
  refuses<DataError>("a.jsonl", "{\"text\":[1]}\n", {},
                     HasSubstr("a.jsonl:1: field \"text\" must be text, got array"));
}

// In every format of records: refused by line, or left out by choice; what follows is read.
TEST_F(DocumentsTest, MalformedRecordsAreRefusedOrLeftOut) {
  struct Case {
    const char *name, *bytes;
    int64_t malformed, empty;
  };
  const Case cases[] = {
      {"a.jsonl",
       "{\"text\": \"one\"}\n{oops\n[1]\n{\"other\": 1}\n{\"text\": 5}\n{\"text\": null}\n"
       "{\"text\": \"\"}\n{\"text\": \"two\"}\n",
       4, 2},
      {"a.json", "[{\"text\": \"one\"}, 7, {\"text\": [1]}, {\"text\": null}, {\"text\": \"two\"}]", 2, 1},
      {"a.csv", "n,text\n1,one\n2\n3,x,y,\"z\n4,a\"b\n5,\"c\"d,e\n6,\n7,two\n", 4, 1},
      {"a.tsv", "n\ttext\n1\tone\n2\n3\tx\ty\n6\t\n7\ttwo\n", 2, 1},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    refuses<DataError>(c.name, c.bytes, {}, HasSubstr((directory_ / c.name).string()));
    DocumentOptions options;
    options.bad_records = "skip";
    EXPECT_THAT(read(c.name, c.bytes, options), ElementsAre("one", "two"));
    const auto reader = open_documents(directory_ / c.name, options);
    for (Document document; reader->next(document);) {
    }
    EXPECT_EQ(reader->left_out().malformed, c.malformed);
    EXPECT_EQ(reader->left_out().empty, c.empty);
    for (const std::string& one : reader->left_out().first)
      EXPECT_THAT(one, HasSubstr((directory_ / c.name).string()));
  }
}

TEST_F(DocumentsTest, ConversationsWithoutMessagesAreLeftOut) {
  DocumentOptions chat;
  chat.messages = "m";
  const std::string good = "{\"m\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n";
  const std::string bytes = "{\"m\": null}\n{\"m\": []}\n" + good;
  EXPECT_EQ(read("c.jsonl", bytes, chat).size(), 1u);
  refuses<DataError>("c.jsonl", "{\"m\": [7]}\n" + good, chat, HasSubstr("c.jsonl:1"));
  chat.bad_records = "skip";
  EXPECT_EQ(read("c.jsonl", "{\"m\": [7]}\n{\"m\": \"x\"}\n" + good, chat).size(), 1u);
}

TEST_F(DocumentsTest, TheFirstTenAreNamed) {
  std::string bytes = "{\"text\": \"one\"}\n";
  for (int i = 0; i < 30; ++i) bytes += "{\n";
  DocumentOptions options;
  options.bad_records = "skip";
  read("a.jsonl", bytes, options);
  const auto reader = open_documents(directory_ / "a.jsonl", options);
  for (Document document; reader->next(document);) {
  }
  EXPECT_EQ(reader->left_out().malformed, 30);
  EXPECT_EQ(reader->left_out().first.size(), LeftOut::kNamed);
}

// Damage to a packing is no record's fault.
TEST_F(DocumentsTest, DamagedFilesAreNotSkipped) {
  DocumentOptions options;
  options.bad_records = "skip";
  std::string packed(100000, '\n');
  packed += "{\"text\": \"one\"}\n";
  packed = zstd_packed(packed);
  packed.resize(packed.size() / 2);
  refuses<DataError>("a.jsonl.zst", packed, options, HasSubstr("a.jsonl.zst"));
}

TEST_F(DocumentsTest, MarksEndADocumentOfText) {
  const DocumentOptions marks{.split = "<|end|>"};
  EXPECT_THAT(read("a.txt", "one<|end|>two\n<|end|><|end|>three", marks),
              ElementsAre("one", "two\n", "three"));
  EXPECT_THAT(read("a.txt", "one<|end|>", marks), ElementsAre("one"));
  EXPECT_THAT(read("a.txt", "one<|end|", marks), ElementsAre("one<|end|"));
  // Marks across the borders of windows, and documents longer than one.
  std::string text;
  std::vector<std::string> expected;
  for (const size_t length : std::vector<size_t>{(1 << 20) - 3, 5, 1 << 20, 2500000, 1}) {
    expected.push_back(std::string(length, '<'));
    text += expected.back() + "<|end|>";
  }
  EXPECT_TRUE(read("a.txt", text, marks) == expected);
}

TEST_F(DocumentsTest, ConversationsAreRenderedInATemplate) {
  const DocumentOptions chats{.messages = "messages", .chat_template = "chatml"};
  EXPECT_THAT(read("a.jsonl",
                   R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes"}]})"
                   "\n"
                   R"({"messages":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Yes"}]})",
                   chats),
              ::testing::Each("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yes<|im_end|>]\n"));
  refuses<DataError>("a.jsonl",
                     R"({"messages":[{"role":"user","content":"Hi"},{"role":"bot","content":"?"}]})", chats,
                     AllOf(HasSubstr("a.jsonl:1"), HasSubstr("\"bot\"")));
  refuses<DataError>("a.jsonl", R"({"messages":"Hi"})", chats, HasSubstr("must be a list"));
  refuses<DataError>("a.jsonl", R"({"messages":[{"role":"user"}]})", chats,
                     AllOf(HasSubstr("message 1"), HasSubstr("\"content\" is missing")));
  refuses<DataError>("a.jsonl", R"({"message":[]})", chats, HasSubstr("\"messages\" is missing"));
}

TEST_F(DocumentsTest, AModelsOwnTemplateGetsMessagesAsTheyAre) {
  write_file(directory_ / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  const std::string form = write_file(directory_ / "chat_template.jinja",
                                      "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{{ "
                                      "m.tool_calls|tojson if m.tool_calls }}{{ eos_token "
                                      "}}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}");
  const std::string records =
      R"({"m":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[{"n":1.0}]}]})"
      "\n"
      R"({"m":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Yes"}]})";
  for (const std::string& address : {form, directory_.path().string()})
    EXPECT_THAT(
        read("a.jsonl", records, {.messages = "m", .chat_template = address}),
        ElementsAre("<user>Hi</s><assistant>[[{\"n\": 1.0}]</s>]", "<user>Hi</s><assistant>[Yes</s>]"));
  EXPECT_THAT(
      read("a.json", R"([{"q":"Hi","a":"Yes"}])", {.prompt = {"q"}, .response = "a", .chat_template = form}),
      ElementsAre("<user>Hi</s><assistant>[Yes</s>]"));
  refuses<DataError>("a.jsonl", R"({"m":[{"content":"Hi"}]})", {.messages = "m", .chat_template = form},
                     HasSubstr("\"role\" is missing"));
  refuses<IoError>("a.jsonl", R"({"m":[]})", {.messages = "m", .chat_template = "no/such/model"},
                   HasSubstr("no/such/model"));
}

TEST_F(DocumentsTest, PromptFieldsAndAResponseAreAConversation) {
  const DocumentOptions options{.prompt = {"instruction", "input"}, .response = "output"};
  EXPECT_THAT(
      read(
          "a.json",
          R"([{"instruction":"Add.","input":"1 2","output":"3"},{"instruction":"Go.","input":"","output":"No."}])",
          options),
      ElementsAre("### Instruction:\nAdd.\n\n1 2\n\n### Response:\n[3\n\n]",
                  "### Instruction:\nGo.\n\n### Response:\n[No.\n\n]"));
}

TEST_F(DocumentsTest, OptionsThatDoNotFitAreRefused) {
  refuses<ConfigError>("a.jsonl", "", {.messages = "m", .response = "r"}, HasSubstr("exclude each other"));
  refuses<ConfigError>("a.jsonl", "", {.prompt = {"p"}}, HasSubstr("must come together"));
  refuses<ConfigError>("a.txt", "x", {.messages = "m"}, HasSubstr("conversations need records"));
  refuses<ConfigError>("a.txt", "x", {}, HasSubstr("need the text that splits them"));
}

}  // namespace retort::data
