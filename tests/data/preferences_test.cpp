// Preferences from records to shards.
#include "data/preferences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/log.h"
#include "data/prepare.h"
#include "data/preview.h"
#include "data/token_shards.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::TemporaryDirectory;
using retort::testing::write_file;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const DocumentOptions kFields = {.prompt = {"prompt"}, .chosen = "chosen", .rejected = "rejected"};
const DocumentOptions kWholes = {.chosen = "chosen", .rejected = "rejected"};
const DocumentOptions kRated = {.prompt = {"prompt"}, .response = "completion", .label = "label"};

class Preferences : public ::testing::Test {
 protected:
  // One text a document, what is learned between brackets, and between braces what is learned as worse.
  std::vector<std::string> read(const std::string& name, const std::string& bytes,
                                const DocumentOptions& options) {
    const auto reader = open_documents(write_file(directory_ / name, bytes), options);
    std::vector<std::string> out;
    for (Document document; reader->next(document);) {
      out.emplace_back();
      for (size_t i = 0; i < document.spans.size(); ++i) {
        const Span& span = document.spans[i];
        const bool second = document.second > 0 && i >= document.second;
        if (second && i == document.second) out.emplace_back();
        const bool worse = second || document.bad;
        out.back() += !span.learned ? span.text : worse ? "{" + span.text + "}" : "[" + span.text + "]";
      }
    }
    return out;
  }
  std::string error(const std::string& bytes, const DocumentOptions& options,
                    const std::string& name = "a.jsonl") {
    try {
      read(name, bytes, options);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryDirectory directory_;
  Log log_{stderr, "", true};
};

constexpr const char* kPrompt = "### Instruction:\nWhy?\n\n### Response:\n";

}  // namespace

TEST_F(Preferences, TextsOfAnyFormatAreWrittenInTheTemplate) {
  const std::string prompt = kPrompt;
  const auto expected = ElementsAre(prompt + "[Since.\n\n]", prompt + "{No.\n\n}");
  EXPECT_THAT(read("a.jsonl", R"({"prompt":"Why?","chosen":"Since.","rejected":"No."})", kFields), expected);
  EXPECT_THAT(read("a.json", R"([{"prompt":"Why?","chosen":"Since.","rejected":"No."}])", kFields), expected);
  EXPECT_THAT(read("a.csv", "prompt,chosen,rejected\nWhy?,Since.,No.\n", kFields), expected);
  EXPECT_THAT(read("a.tsv", "prompt\tchosen\trejected\nWhy?\tSince.\tNo.\n", kFields), expected);
}

TEST_F(Preferences, MessagesMayBePromptOrAnswerOrWholes) {
  const char* messages = R"({"prompt":[{"role":"user","content":"Why?"}],)"
                         R"("chosen":[{"role":"assistant","content":"Since."}],"rejected":"No."})";
  const std::string prompt = kPrompt;
  EXPECT_THAT(read("a.jsonl", messages, kFields), ElementsAre(prompt + "[Since.\n\n]", prompt + "{No.\n\n}"));
  // The common beginning is the prompt, with an answer of its own that is only read.
  const char* wholes = R"({"chosen":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},)"
                       R"({"role":"user","content":"Why?"},{"role":"assistant","content":"Since."}],)"
                       R"("rejected":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"},)"
                       R"({"role":"user","content":"Why?"},{"role":"assistant","content":"No."}]})";
  const std::string before = "### Instruction:\nHi\n\n### Response:\nHello\n\n" + prompt;
  EXPECT_THAT(read("a.jsonl", wholes, kWholes), ElementsAre(before + "[Since.\n\n]", before + "{No.\n\n}"));
  // What a template adds after an answer's mark belongs to no answer.
  DocumentOptions marked = kFields;
  marked.chat_template = "chatml";
  EXPECT_THAT(read("a.jsonl", messages, marked).front(),
              "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n[Since.<|im_end|>]");
}

TEST_F(Preferences, WholeTextsPartBeforeAWord) {
  EXPECT_THAT(
      read("a.jsonl", R"({"chosen":"Q: Why? A: Yes it is","rejected":"Q: Why? A: Yesterday"})", kWholes),
      ElementsAre("Q: Why? A:[ Yes it is]", "Q: Why? A:{ Yesterday}"));
  EXPECT_THAT(read("a.jsonl", R"({"chosen":"Why?\nSince","rejected":"Why?\nSo"})", kWholes),
              ElementsAre("Why?\n[Since]", "Why?\n{So}"));
  EXPECT_THAT(read("a.jsonl", R"({"chosen":"Q: yes","rejected":"Q: yes sir"})", kWholes),
              ElementsAre("Q:[ yes]", "Q:{ yes sir}"));
}

TEST_F(Preferences, RatedAnswersHaveLabels) {
  const std::string prompt = kPrompt;
  const auto expected = ElementsAre(prompt + "[Since.\n\n]", prompt + "{No.\n\n}");
  EXPECT_THAT(read("a.jsonl",
                   "{\"prompt\":\"Why?\",\"completion\":\"Since.\",\"label\":true}\n"
                   "{\"prompt\":\"Why?\",\"completion\":\"No.\",\"label\":false}\n",
                   kRated),
              expected);
  EXPECT_THAT(read("a.csv", "prompt,completion,label\nWhy?,Since.,true\nWhy?,No.,False\n", kRated), expected);
}

TEST_F(Preferences, BadRecordsAreNamed) {
  const auto where = HasSubstr("a.jsonl:1");
  const auto pair = [&](const std::string& line) { return error(line, kFields); };
  EXPECT_THAT(pair(R"({"prompt":"Why?","chosen":"No.","rejected":"No."})"),
              AllOf(where, HasSubstr("chosen and rejected are the same answer")));
  EXPECT_THAT(pair(R"({"prompt":"Why?","chosen":" ","rejected":"No."})"),
              AllOf(where, HasSubstr("field \"chosen\": the answer must not be empty")));
  EXPECT_THAT(pair(R"({"prompt":"Why?","chosen":"Since.","rejected":null})"),
              AllOf(where, HasSubstr("field \"rejected\": the answer must not be empty")));
  EXPECT_THAT(pair(R"({"prompt":"Why?","choosen":"Since.","rejected":"No."})"),
              AllOf(where, HasSubstr("field \"chosen\" is missing; did you mean \"choosen\"?")));
  EXPECT_THAT(pair(R"({"prompt":"","chosen":"Since.","rejected":"No."})"),
              AllOf(where, HasSubstr("the prompt must not be empty")));
  EXPECT_THAT(pair(R"({"prompt":"Why?","chosen":[{"role":"user","content":"I ask"}],"rejected":"No."})"),
              AllOf(where, HasSubstr("must end with the assistant's message, got role \"user\"")));
  EXPECT_THAT(pair(R"({"prompt":"Why?","rejected":"No.","chosen":[{"role":"user","content":"Why?"},)"
                   R"({"role":"assistant","content":"Since."}]})"),
              AllOf(where, HasSubstr("got 2 messages (leave prompt out where")));
  EXPECT_THAT(pair(R"({"prompt":[{"role":"assistant","content":"I"}],"chosen":"Since.","rejected":"No."})"),
              AllOf(where, HasSubstr("a prompt must not end with the assistant's message")));
  const auto whole = [&](const std::string& line) { return error(line, kWholes); };
  EXPECT_THAT(whole(R"({"chosen":"Since.","rejected":"No."})"),
              HasSubstr("must begin alike, with the prompt"));
  EXPECT_THAT(whole(R"({"chosen":"Why? No","rejected":[]})"), HasSubstr("both be text or both be messages"));
  EXPECT_THAT(
      whole(R"({"chosen":[{"role":"user","content":"a"}],"rejected":[{"role":"user","content":"b"}]})"),
      HasSubstr("must begin alike, with the prompt, and part at an answer"));
  for (const char* label : {"1", "\"yes\"", "null"})
    EXPECT_THAT(error(fmt::format(R"({{"prompt":"Why?","completion":"No.","label":{}}})", label), kRated),
                AllOf(where, HasSubstr("field \"label\": must be true or false, got")));
  EXPECT_THAT(error("prompt,chosen\nWhy?,No.\n", kFields, "a.csv"),
              HasSubstr("column \"rejected\" is missing"));
}

TEST_F(Preferences, FieldsThatDoNotGoTogetherAreRefused) {
  for (const DocumentOptions& options :
       {DocumentOptions{.chosen = "a"}, DocumentOptions{.response = "c", .chosen = "a", .rejected = "b"},
        DocumentOptions{.messages = "m", .label = "c"}})
    EXPECT_THROW(options.check_fields(), ConfigError);
}

// One begin, one end, the same prompt; the mask says whose answer a token is.
TEST_F(Preferences, ShardsAlternateChosenAndRejected) {
  const std::string path = write_file(directory_ / "a.jsonl",
                                      "{\"prompt\":\"Why?\",\"chosen\":\"Since.\",\"rejected\":\"No.\"}\n"
                                      "{\"prompt\":\"Why?\",\"chosen\":\"So.\",\"rejected\":\"Never.\"}\n");
  const PrepareReport report =
      prepare({.text = {path}, .validation = 0.0, .documents = kFields, .shard_tokens = 50},
              directory_ / "out", 2, local_files(), log_);
  EXPECT_EQ(report.train.documents, 4);
  const TokenShards shards(directory_ / "out" / "train");
  EXPECT_EQ(shards.kind(), ShardKind::kPairs);
  shards.verify();
  std::vector<std::string> learned;
  for (int64_t begin = 0; begin < shards.size(); begin = shards.document_end(begin)) {
    std::vector<int64_t> ids(static_cast<size_t>(shards.document_end(begin) - begin));
    std::vector<uint8_t> mask(ids.size());
    shards.read(begin, ids);
    shards.read_loss_mask(begin, mask);
    const size_t prompt = std::string_view(kPrompt).size();
    EXPECT_EQ(std::string(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(prompt)), kPrompt);
    for (size_t i = 0; i < ids.size(); ++i)
      EXPECT_EQ(mask[i], i < prompt ? kRead : learned.size() % 2 == 0 ? kLearned : kLearnedAsWorse) << i;
    learned.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(prompt), ids.end());
  }
  EXPECT_THAT(learned, ElementsAre("Since.\n\n", "No.\n\n", "So.\n\n", "Never.\n\n"));
}

TEST_F(Preferences, APreviewMarksAnswersAndCountsRows) {
  const std::string path = write_file(directory_ / "a.jsonl", R"({"chosen":"Q: yes","rejected":"Q: no"})");
  prepare({.text = {path}, .validation = 0.0, .documents = kWholes}, directory_ / "out", 2, local_files(),
          log_);
  const std::string shown = preview(TokenShards(directory_ / "out" / "train"), {.samples = 3, .sequence = 5});
  EXPECT_THAT(shown,
              AllOf(HasSubstr("Q:\u27e6 yes\u27e7"), HasSubstr("Q:\u27e6 no\u27e7"),
                    HasSubstr("5 tokens, 3 learned"), HasSubstr("2 documents (pairs), 11 tokens, 7 learned"),
                    HasSubstr("2 rows\ntruncated 1, without label 0, alike 0")));
}

TEST_F(Preferences, AnAnswerHasOneEnd) {
  RETORT_NEEDS_TEST_DATA();
  const std::string path =
      write_file(directory_ / "a.jsonl", "{\"chosen\":\"Q: yes<|endoftext|>\",\"rejected\":\"Q: no\"}\n");
  const std::string gpt2 = (testing::test_data() / "tokenizers" / "gpt2").string();
  prepare({.tokenizer = gpt2, .text = {path}, .validation = 0.0, .documents = kWholes}, directory_ / "out", 2,
          local_files(), log_);
  const TokenShards shards(directory_ / "out" / "train");
  const int64_t stop = *shards.tokenizer()->separator();
  EXPECT_EQ(shards.documents(), 2);
  for (int64_t begin = 0; begin < shards.size(); begin = shards.document_end(begin)) {
    std::vector<int64_t> ids(static_cast<size_t>(shards.document_end(begin) - begin));
    shards.read(begin, ids);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), stop), 1);
    EXPECT_EQ(ids.back(), stop);
  }
}

}  // namespace retort::data
